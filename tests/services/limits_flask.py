"""A Flask application with Flask-Limiter, whose file and strategy are of the environment."""

import os

from flask import Flask, request
from flask_limiter import Limiter

app = Flask(__name__)
limiter = Limiter(
    lambda: request.headers.get("X-Key", os.urandom(8).hex()),
    app=app,
    storage_uri=f"headgate://{os.environ['HEADGATE_TEST_PATH']}",
    strategy=os.environ["HEADGATE_TEST_STRATEGY"],
)


@app.get("/")
@limiter.limit(os.environ["HEADGATE_TEST_RATE"])
def pid():
    return str(os.getpid())
