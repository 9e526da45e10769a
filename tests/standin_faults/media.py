"""Faults of the picture: where it is said to be, how it comes, and what it is."""

import io
import struct
from collections.abc import Callable
from typing import Any

from standin_server.exchange import Exchange
from standin_server.pictures import chunk, draw, png, rows

from .kinds import HTML, Act, Fault, changed, garbage, page

_BIG = b"x" * (3 * 1024 * 1024)


def _image(**options: Any) -> Callable[[], bytes]:
    """A picture by Pillow; ``mode``, ``kind``, and what ``save`` takes."""

    def make() -> bytes:
        from PIL import Image

        mode, kind = options.get("mode", "RGB"), options.get("kind", "PNG")
        image = Image.open(io.BytesIO(draw(48, 32, 7, "fault")))
        image = image.quantize(16) if mode == "P" else image.convert(mode)
        more = {key: value for key, value in options.items() if key not in ("mode", "kind")}
        if "frames" in more:
            more = {"save_all": True, "append_images": [image.transpose(0)] * more.pop("frames")}
        if "exif" in more:
            exif = Image.Exif()
            exif[0x0112] = more["exif"]
            more["exif"] = exif
        buffer = io.BytesIO()
        image.save(buffer, kind, **more)
        return buffer.getvalue()

    return make


def _odd_tags() -> bytes:
    """A JPEG that says to turn it, and has a text for its resolution."""
    body = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 3)
    for tag, kind, count, value in ((0x0112, 3, 1, b"\6"), (0x011A, 2, 4, b"abc"),
                                    (0x0128, 3, 1, b"\2")):  # fmt: skip
        body += struct.pack("<HHL", tag, kind, count) + value.ljust(4, b"\0")
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 6) + body + b"\0" * 4
    plain = _image(kind="JPEG")()
    return plain[:2] + segment + plain[2:]


def _sixteen(colour_type: int, channels: int) -> Callable[[], bytes]:
    """A 16-bit ramp from black to white."""

    def make() -> bytes:
        line = b"".join(struct.pack(">H", x * 65535 // 47) * channels for x in range(48))
        return png(48, 32, [line] * 32, 16, colour_type)

    return make


def _bomb() -> bytes:
    """A header that claims 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    return data + chunk(b"IEND", b"")


def _damaged() -> bytes:
    data = png(48, 32, rows(48, 32, 7, "fault"))
    return data[:60] + b"\0\0\0\0" + data[64:]


def _sends(make: Callable[[], bytes], kind: str = "image/png") -> Act:
    return lambda x: x.bytes(200, make(), kind)


def _at(place: Callable[[str, Exchange], str]) -> Act:
    """A result whose picture is said to be at another address."""

    def change(body: dict[str, Any], x: Exchange) -> dict[str, Any]:
        if "output" not in body:
            return body
        return {**body, "output": {"image": place(body["output"]["image"], x)}}

    return changed(change)


def _moved(place: Callable[[Exchange], str]) -> Act:
    return lambda x: x.bytes(302, b"", "text/plain", Location=place(x))


def _endless(x: Exchange) -> None:
    """More than the cap, without having said so."""
    x.raw(x.head(200, "image/png", None, Connection="close"))
    for _ in range(4):
        x.raw(_BIG)
    x.close()


ADDRESSES = (
    ("foreign_host", lambda url, x: "https://example.com/a.png?X-Signature=topsecret"),
    ("lookalike_host", lambda url, x: "https://runcomfy.net.example.com/a.png"),
    ("suffix_host", lambda url, x: "https://evilruncomfy.net/a.png"),
    ("other_port", lambda url, x: "https://files.runcomfy.net:8443/a.png"),
    ("other_loopback_port", lambda url, x: f"{x.elsewhere}/a.png"),
    ("plain_http", lambda url, x: "http://files.runcomfy.net/a.png"),
    ("user_info", lambda url, x: "https://me:pw@files.runcomfy.net/a.png"),
    ("user_info_host", lambda url, x: url.replace("://", "://files.runcomfy.net@")),
    ("private_address", lambda url, x: "https://10.0.0.1/a.png"),
    ("metadata_address", lambda url, x: "http://169.254.169.254/latest/meta-data"),
    ("file_scheme", lambda url, x: "file:///etc/passwd"),
    ("ftp_scheme", lambda url, x: "ftp://files.runcomfy.net/a.png"),
    ("data_scheme", lambda url, x: "data:image/png;base64,iVBORw0KGgo="),
    ("relative", lambda url, x: "/media/a.png"),
    ("backslash", lambda url, x: "https:\\\\files.runcomfy.net\\a.png"),
)

_TAKEN = (
    ("webp_named_png", _image(kind="WEBP", lossless=True)),
    ("jpeg_named_png", _image(kind="JPEG")),
    ("sixteen_bit_grey", _sixteen(0, 1)),
    ("sixteen_bit_rgb", _sixteen(2, 3)),
    ("grey", _image(mode="L")),
    ("one_bit", _image(mode="1")),
    ("palette", _image(mode="P")),
    ("palette_clear", _image(mode="P", transparency=0)),
    ("alpha", _image(mode="RGBA")),
    ("grey_alpha", _image(mode="LA")),
    ("cmyk", _image(mode="CMYK", kind="JPEG")),
    ("turned", _image(kind="JPEG", exif=6)),
    ("odd_tags", _odd_tags),
    ("animated_webp", _image(kind="WEBP", frames=2)),
    ("animated_png", _image(frames=2)),
)

_NOT_TAKEN = (
    ("page", lambda: HTML),
    ("empty", lambda: b""),
    ("gif", _image(mode="P", kind="GIF")),
    ("svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("bomb", _bomb),
    ("damaged", _damaged),
    ("signature_alone", lambda: b"\x89PNG\r\n\x1a\n"),
)

_ONCE: tuple[tuple[str, Act], ...] = (
    ("404_at_first", page(404)),
    ("403_at_first", page(403)),
    ("500", page(500)),
    ("503_seconds", page(503, Retry_After="0.1")),
    ("429", page(429)),
    ("closed", lambda x: x.close()),
    ("reset", lambda x: x.reset()),
    ("cut", lambda x: x.cut(x.body, "image/png")),
    ("hang", lambda x: x.hang()),
    ("damaged_once", _sends(_damaged)),
    ("same_origin_redirect", _moved(lambda x: x.handler.path)),
)

MEDIA = (
    *(Fault(f"media_{name}", "result", _at(place), "media", 0) for name, place in ADDRESSES),
    *(Fault(f"media_{name}", "media", act, "delivered") for name, act in _ONCE),
    *(Fault(f"media_{name}", "media", _sends(make), "delivered", 0) for name, make in _TAKEN),
    *(Fault(f"media_{name}", "media", _sends(make), "media", 0) for name, make in _NOT_TAKEN),
    Fault("media_404_always", "media", page(404), "media", 0),
    Fault("media_403_always", "media", page(403), "media", 0),
    Fault("media_500_always", "media", page(500), "media", 0),
    Fault("media_hang_always", "media", lambda x: x.hang(), "media", 0),
    Fault("media_garbage", "media", garbage, "delivered"),
    Fault("media_garbage_always", "media", garbage, "media", 0),
    Fault("media_too_large", "media", lambda x: x.bytes(200, _BIG, "image/png"), "media", 0),
    Fault("media_too_large_unsaid", "media", _endless, "media", 0),
    Fault("media_redirect_elsewhere", "media", _moved(lambda x: f"{x.elsewhere}/a.png"),
          "media", 0),
    Fault("media_redirect_inside", "media", _moved(lambda x: "https://192.168.0.1/a.png"),
          "media", 0),
    Fault("media_redirect_loop", "media", _moved(lambda x: x.handler.path), "media", 0),
    Fault("media_slow", "media", lambda x: x.drip(x.head(200, "image/png", len(x.body)) + x.body,
          0.0005), "delivered", 0),
)  # fmt: skip
