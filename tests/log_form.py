"""Define the form of a log message in every program of the house.

A message names the component and the event in lower case, then gives its values as `key=value`, and ends
without a period. A value that may contain blanks is quoted, as `%r` does.
"""

import re

LOG_MESSAGE: re.Pattern[str] = re.compile(
    r"[a-z](?:[^=%\n]*[^=%\n.])?"
    r"(?: [a-z_]+=(?:\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|\S+))*\Z"
)
"""Use with `match`. Holds for finished messages and for format strings with `%s`, `%d`, `%r` as values."""
