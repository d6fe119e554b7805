"""Read the certificates of the broker's connection."""

import ssl

from .common.settings import MqttSettings, SettingsError


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """Return the TLS context of `settings`, None without TLS. Raises SettingsError."""
    if settings.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file and settings.key_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        files = ", ".join(str(f) for f in (settings.ca_file, settings.cert_file, settings.key_file) if f)
        raise SettingsError([f"mqtt: the certificates cannot be read ({files}): {error.strerror}"]) from error
    return context
