"""The image probe: a web picture's size, from its first bytes; a help, never a condition."""

import logging
from collections.abc import Callable

from PIL import Image, ImageFile

from ...network.address import AddressPolicy
from ...network.client import HttpClient, Limits
from ...network.errors import NetworkError

logger = logging.getLogger(__name__)

HEAD_BYTES = 512 * 1024
WHOLE_BYTES = 50 * 1024 * 1024  # RunComfy recommends at most 50 MB a picture
SECONDS = 5.0


def picture_size(
    url: str, policy: AddressPolicy, should_stop: Callable[[], None]
) -> tuple[int, int] | None:
    """(width, height) in pixels, None where it cannot be told. Blocking, at most ``SECONDS``."""
    parser = ImageFile.Parser()
    read = 0
    client = HttpClient(policy, Limits(WHOLE_BYTES, SECONDS, SECONDS, SECONDS), should_stop)
    try:
        with client.stream(url) as answer:
            for piece in answer.pieces if answer.status == 200 else ():
                # Small bites: the parser decodes what it is fed once it knows the header.
                for start in range(0, len(piece), 1024):
                    parser.feed(piece[start : start + 1024])
                    if parser.image is not None:
                        return parser.image.size
                read += len(piece)
                if read >= HEAD_BYTES:
                    break
    except NetworkError as error:
        logger.debug("RunComfy: no size of a reference on the web (%s)", type(error).__name__)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        logger.debug("RunComfy: a reference on the web has an unreadable header")
    return None
