"""Requests that no proxy may pass on."""

from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "edge"


def malformed(target, host):
    """Requests by what is wrong with each; all would ask for `target` at `host`."""
    get, post = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n", f"POST {target} HTTP/1.1\r\nHost: {host}\r\n"
    chunked = "Transfer-Encoding: chunked\r\n"
    second = f"GET {target}-smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"
    texts = {
        "two lengths": f"{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "equal lengths twice": f"{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "a list of lengths": f"{post}Content-Length: 5, 6\r\n\r\nhello!",
        "a signed length": f"{post}Content-Length: +5\r\n\r\nhello",
        "a negative length": f"{post}Content-Length: -1\r\n\r\n",
        "a hexadecimal length": f"{post}Content-Length: 0x5\r\n\r\nhello",
        "a length with an underscore": f"{post}Content-Length: 1_0\r\n\r\nhellohello",
        "an empty length": f"{post}Content-Length: \r\n\r\n",
        "a huge length": f"{post}Content-Length: 99999999999999999999\r\n\r\nhello",
        "length and chunks": f"{post}Content-Length: 6\r\n{chunked}\r\n0\r\n\r\n{second}",
        "chunks and length": f"{post}{chunked}Content-Length: 6\r\n\r\n0\r\n\r\n{second}",
        "chunked twice": f"{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{second}",
        "chunked not last": f"{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{second}",
        "another coding": f"{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{second}",
        "a coding with a vertical tab": f"{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{second}",
        "a space before the colon": f"{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{second}",
        "a line that is folded": f"{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{second}",
        "a folded first field": f"GET {target} HTTP/1.1\r\n X: y\r\nHost: {host}\r\n\r\n",
        "a bare LF within a value": f"{get}X: a\nTransfer-Encoding: chunked\r\n\r\n",
        "a bare CR within a value": f"{get}X: a\rTransfer-Encoding: chunked\r\n\r\n",
        "a bell within a value": f"{get}X: a\x07b\r\n\r\n",
        "a NUL within a value": f"{get}X: a\0b\r\n\r\n",
        "a field without a colon": f"{get}nonsense\r\n\r\n",
        "a field without a name": f"{get}: x\r\n\r\n",
        "a name with a space": f"{get}X Y: z\r\n\r\n",
        "a name with brackets": f"{get}X[]: z\r\n\r\n",
        "no host": f"GET {target} HTTP/1.1\r\n\r\n",
        "two hosts": f"{get}Host: other.test\r\n\r\n",
        "one host twice": f"{get}Host: {host}\r\n\r\n",
        "an empty host": f"GET {target} HTTP/1.1\r\nHost: \r\n\r\n",
        "a host with a user": f"GET {target} HTTP/1.1\r\nHost: a@{host}\r\n\r\n",
        "a host with a path": f"GET {target} HTTP/1.1\r\nHost: {host}/x\r\n\r\n",
        "a host with a comma": f"GET {target} HTTP/1.1\r\nHost: {host},other.test\r\n\r\n",
        "no version": f"GET {target}\r\nHost: {host}\r\n\r\n",
        "a version to come": f"GET {target} HTTP/3.7\r\nHost: {host}\r\n\r\n",
        "a version in lower case": f"GET {target} http/1.1\r\nHost: {host}\r\n\r\n",
        "a target with a space": f"GET {target} x HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "a method with a bracket": f"GE(T {target} HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "a target that is a control character": f"GET {target}\x01 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    }
    return {name: text.encode("latin-1") for name, text in texts.items()}


def malformed_chunks(target, host):
    """Requests whose heads are right, and whose chunks are not."""
    post = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    texts = {
        "no number": f"{post}zz\r\nhello\r\n0\r\n\r\n",
        "a sign": f"{post}+5\r\nhello\r\n0\r\n\r\n",
        "a prefix": f"{post}0x5\r\nhello\r\n0\r\n\r\n",
        "a negative size": f"{post}-5\r\nhello\r\n0\r\n\r\n",
        "too many digits": f"{post}00000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "a huge size": f"{post}fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "more than its size": f"{post}5\r\nhello!\r\n0\r\n\r\n",
        "a bare LF after the size": f"{post}5\nhello\r\n0\r\n\r\n",
        "no line after the data": f"{post}5\r\nhello0\r\n\r\n",
    }
    return {name: text.encode("latin-1") for name, text in texts.items()}
