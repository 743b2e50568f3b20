"""pydantic's own words, which no refusal has, and values of each kind that are wrong somewhere."""

from __future__ import annotations

import re
from typing import Any

WRONG_VALUES: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    "\0",
    "--vars",
    "no such value",
    "../x y",
    "~no-such-user",
    "https://user:password@git.example",
    [],
    {},
]

STOCK_PHRASES = re.compile(
    r"\b(Input|String|Value|List|Tuple|Set|Dictionary|Data|Decimal|URL|UUID|Datetime|Date|Time|Keys) should"
    r"|Value error|Field required|inputs are not permitted|Unable to|match pattern|could not parse|Assertion failed"
    r"|\bvalid (string|integer|number|boolean|list|tuple|dictionary|path|date)|\bat (least|most) \d+ items?\b"
)
