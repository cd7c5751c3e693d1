"""A Flask application whose workers have one limit, of HEADGATE_TEST_RATE in the file HEADGATE_TEST_PATH."""

import os

from flask import Flask

from headgate import RateLimiter
from headgate.adapters.flask import limit
from headgate.adapters.keys import header

app = Flask(__name__)
limiter = RateLimiter(os.environ["HEADGATE_TEST_RATE"], path=os.environ["HEADGATE_TEST_PATH"])


@app.get("/")
@limit(limiter, key=header("X-Key"))
def pid():
    return str(os.getpid())
