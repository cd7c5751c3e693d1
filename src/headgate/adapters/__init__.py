"""Where the primitives plug into other packages, one module a host; none is imported unasked."""
