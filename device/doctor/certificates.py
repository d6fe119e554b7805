"""Read the expiry of a certificate."""

import re
import ssl
from datetime import datetime, timezone
from pathlib import Path

# X.509's Validity (RFC 5280, 4.1.2.5): a sequence of two times, UTCTime with two digits of the year or
# GeneralizedTime with four. The standard library reads them of a peer's certificate only.
_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY = re.compile(rb"\x30." + _TIME + _TIME, re.DOTALL)


def certificate_ends(file: Path) -> datetime | None:
    """Return the expiry of the certificate in a PEM file, None without one.

    Raises OSError.
    """
    pem = re.search(
        r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
        file.read_text(encoding="ascii", errors="replace"),
        re.DOTALL,
    )
    found = _VALIDITY.search(ssl.PEM_cert_to_DER_cert(pem[0])) if pem else None
    if found is None:
        return None
    short, full = found[3], found[4]
    # Two digits mean 1950 to 2049.
    digits = full or (b"19" if short >= b"50" else b"20") + short
    return datetime.strptime(digits.decode(), "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
