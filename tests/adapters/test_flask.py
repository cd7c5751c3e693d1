"""The decorator `limit` for views of Flask, without and with RateLimitMiddleware around the application."""

import json
from wsgiref.validate import validator

import pytest
from flask import Blueprint, Flask, g
from flask.views import MethodView, View

from headgate import AddressLimiter, RateLimiter, RateLimits
from headgate.adapters.flask import RateLimited, limit
from headgate.adapters.keys import client, const, header, user
from headgate.adapters.wsgi import RateLimitMiddleware


@pytest.fixture
def app():
    app = Flask("shop")
    app.testing = True
    return app


def get(app, path="/", method="GET", **headers):
    return app.test_client().open(path, method=method, headers=headers, buffered=True)


def statuses(app, *paths, **options):
    return [get(app, path, **options).status_code for path in paths]


def view():
    return "hello"


def test_a_route_is_counted_by_its_template_and_method(app, clock):
    limited = limit(RateLimiter("2/min", clock=clock))
    app.route("/orders/<int:number>", methods=["GET", "POST"])(limited(lambda number: str(number)))
    app.add_url_rule("/items", view_func=limited(view))
    assert statuses(app, "/orders/1", "/orders/2", "/orders/3", "/items") == [200, 200, 429, 200]
    assert statuses(app, "/orders/1", method="POST") == [200]
    clock.advance(30)
    assert statuses(app, "/orders/4") == [200]
    assert limited.stats()["default"] == (5, 1, {"2/min": 1})


def test_fields_and_body(app, clock):
    app.add_url_rule("/", view_func=limit(RateLimiter("1/min", clock=clock))(view))
    allowed, denied = get(app), get(app)
    assert allowed.headers["RateLimit"] == '"1/min";r=0;t=60'
    assert denied.headers["RateLimit-Policy"] == '"1/min";q=1;w=60'
    assert denied.headers.getlist("Retry-After") == ["60"]
    assert denied.content_type == "application/problem+json"
    assert json.loads(denied.data)["status"] == 429
    head = [get(app, method="HEAD") for _ in range(2)][1]
    assert (head.status_code, head.data) == (429, b"")


@pytest.mark.parametrize(("style", "names"), [("legacy", {"x-ratelimit-remaining"}), (None, set())])
def test_other_fields(app, style, names):
    app.add_url_rule("/", view_func=limit("1/min", headers=style)(view))
    for response in (get(app), get(app)):
        found = {name for name, _ in response.headers if "ratelimit" in name.lower()}
        assert found >= names
        assert bool(found) == bool(names)


def test_one_name_for_several_views(app):
    limited = limit("2/min", shared="reports")
    app.add_url_rule("/a", "a", limited(view))
    app.add_url_rule("/b", "b", limited(view))
    assert statuses(app, "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_blueprints(app):
    limited = limit("1/min")
    for name in ("one", "two"):
        blueprint = Blueprint(name, name)
        blueprint.add_url_rule("/x", "x", limited(view))
        app.register_blueprint(blueprint, url_prefix=f"/{name}")
    assert statuses(app, "/one/x", "/two/x", "/one/x", "/two/x") == [200, 200, 429, 429]


def test_a_whole_blueprint(app):
    blueprint = Blueprint("all", "all")
    blueprint.before_request(limit("2/min", shared="all").check)
    blueprint.add_url_rule("/a", "a", view)
    blueprint.add_url_rule("/b", "b", view)
    app.register_blueprint(blueprint)
    app.add_url_rule("/free", "free", view)
    assert statuses(app, "/a", "/b", "/a", "/free") == [200, 200, 429, 200]


def test_class_based_views(app):
    class Page(View):
        decorators = (limit("1/min"),)

        def dispatch_request(self):
            return "page"

    class Item(MethodView):
        @limit("1/min")
        def get(self, number):
            return str(number)

        def post(self, number):
            return "posted"

    app.add_url_rule("/page", view_func=Page.as_view("page"))
    app.add_url_rule("/items/<int:number>", view_func=Item.as_view("item"))
    assert statuses(app, "/page", "/page", "/items/1", "/items/2") == [200, 429, 200, 429]
    assert statuses(app, "/items/1", "/items/1", method="POST") == [200, 200]
    with pytest.raises(TypeError, match=r"view must be a function, got <class '.*Page'>; a class has decor"):
        limit("1/min")(Page)


def test_asynchronous_views(app):
    async def slow():
        return "slow"

    app.add_url_rule("/slow", view_func=limit("1/min")(slow))
    assert statuses(app, "/slow", "/slow") == [200, 429]


def test_the_user_is_known_as_functions_before_the_request_run_first(app):
    @app.before_request
    def authenticate():
        g.user = User()

    class User:
        is_authenticated = True
        id = 7

    keys = []

    def by_user(request):
        keys.append((user()(request), request.route, request.path))
        return keys[-1][0]

    app.add_url_rule("/<name>", view_func=limit("1/min", key=by_user)(lambda name: name))
    assert statuses(app, "/a", "/b") == [200, 429]
    assert keys == [("7", "/<name>", "/a"), ("7", "/<name>", "/b")]
    User.is_authenticated = False
    assert statuses(app, "/a", "/b") == [200, 200], "no user, no say"


def test_the_path_that_the_application_is_mounted_at(app):
    keys = []
    app.add_url_rule("/a", view_func=limit("9/min", key=lambda request: keys.append(request.route))(view))
    app.test_client().get("/a", environ_overrides={"SCRIPT_NAME": "/shop", "PATH_INFO": "/a"})
    assert keys == ["/shop/a"]


def test_several_decorators_decide_as_one(app, clock):
    wide, narrow = RateLimiter("10/min", clock=clock), RateLimiter("1/min", clock=clock)
    everyone = {"key": const("all"), "shared": "all"}
    app.add_url_rule("/", view_func=limit(wide, **everyone)(limit(wide, **everyone)(
        limit(narrow, **everyone)(view))))
    assert statuses(app, *["/"] * 3) == [200, 429, 429]
    assert wide.peek("all\nall").remaining == 9, "charged once, and not for what was denied"
    assert get(app).headers["RateLimit"] == '"1/min";r=0;t=60'


def test_a_middleware_and_a_view_decide_as_one(app, clock):
    whole, single = RateLimiter("10/min", clock=clock), RateLimiter("1/min", clock=clock)
    app.add_url_rule("/", view_func=limit(single, headers="both")(view))
    middleware = RateLimitMiddleware(validator(app.wsgi_app), whole, keys=client(), headers="draft")
    app.wsgi_app = validator(middleware)
    responses = [get(app) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 429, 429]
    assert whole.peek("127.0.0.1").remaining == 9
    assert responses[2].headers.getlist("RateLimit") == ['"1/min";r=0;t=60'], "written by the middleware"
    assert responses[2].headers["Retry-After"] == "60"
    assert "X-RateLimit-Limit" not in responses[2].headers
    assert middleware.stats()["default"][:2] == (3, 0)


def test_settling(app, clock):
    whole, single = RateLimiter("1000/min", clock=clock), RateLimiter("2000/min", clock=clock)

    @app.get("/")
    @limit(single, cost=800, key=const("all"), shared="all")
    def costly():
        g.headgate.settle(300)
        return "done"

    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, whole, keys=const("all"), cost=800)
    assert get(app).headers["RateLimit"].startswith('"1000/min"')
    assert whole.peek("all").remaining == 700
    assert single.peek("all\nall").remaining == 1700


def test_own_responses(app):
    seen = []

    @app.errorhandler(429)
    def sorry(error):
        seen.append(error)
        return {"error": "slow down"}, 429

    app.add_url_rule("/", view_func=limit("1/min")(view))
    get(app)
    denied = get(app)
    assert (denied.status_code, denied.json) == (429, {"error": "slow down"})
    assert denied.headers["Retry-After"] == "60"
    assert denied.headers["RateLimit"] == '"1/min";r=0;t=60'
    assert isinstance(seen[0], RateLimited)
    assert seen[0].charge.decision.violated == ("1/min",)


def test_handlers_know_when_to_retry(app):
    app.register_error_handler(429, lambda error: (str(error.retry_after), 429))
    app.add_url_rule("/", view_func=limit("1/min")(view))
    app.add_url_rule("/never", "never", view_func=limit("1/min", cost=2)(view))
    assert [get(app, path).data for path in ("/", "/", "/never")] == [b"hello", b"60", b"None"]


def test_a_view_that_raises_has_the_fields_too(app):
    app.testing = False

    @app.get("/")
    @limit("9/min")
    def broken():
        raise LookupError

    response = get(app)
    assert response.status_code == 500
    assert response.headers["RateLimit"] == '"9/min";r=8;t=7'


def test_no_say_exempt_and_dry_run(app):
    app.add_url_rule("/team", view_func=limit("1/min", key=header("X-Team"))(view))
    app.add_url_rule("/free", view_func=limit("1/min", exempt=["/free"])(view), endpoint="free")
    dry = limit("1/min", dry_run=True)
    app.add_url_rule("/dry", view_func=dry(lambda: str(g.headgate.would_deny is not None)), endpoint="dry")
    assert statuses(app, "/team", "/team", "/free", "/free") == [200] * 4
    assert [get(app, "/dry").text for _ in range(2)] == ["False", "True"]
    assert "RateLimit" not in get(app, "/dry").headers
    assert dry.stats()["default"][:2] == (1, 2)


class AsynchronousLimiter(RateLimiter):
    async def reserve(self, key, cost=1):
        return super().reserve(key, cost)


@pytest.mark.parametrize(("limits", "options", "message"), [
    (RateLimits(ip="1/s"), {}, "limits must be a rate or a limiter by key"),
    (AddressLimiter("1/s"), {}, "limits must be a rate or a limiter by key"),
    (AsynchronousLimiter("1/s"), {}, "limits must not be asynchronous"),
    ("1/s", {"key": "ip"}, "key must be callable or None, got 'ip'"),
    ("1/s", {"key": client}, r"key must be what client\(\) returns, got the function client itself"),
    ("1/s", {"shared": 7}, "shared must be a str or None, got 7"),
])
def test_arguments_that_are_refused(limits, options, message):
    with pytest.raises(TypeError, match=message):
        limit(limits, **options)
