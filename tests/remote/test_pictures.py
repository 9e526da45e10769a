"""Pictures out (data URIs) and in (PNG, JPEG, WebP in every mode), and where they may come from."""

import asyncio
import base64
import io
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from remote_support import MODEL, context_at, new_token, payload, policy_of
from standin_server import Standin, Timing
from standin_server.pictures import draw, png

from flux2_lora_edit.network.address import PUBLIC_ONLY
from flux2_lora_edit.remote.context import Interrupted
from flux2_lora_edit.remote.errors import InvalidInput, MediaError
from flux2_lora_edit.remote.job import Job
from flux2_lora_edit.remote.pictures import media, probe
from flux2_lora_edit.remote.pictures.encode import check_request, encode
from flux2_lora_edit.remote.pictures.media import (
    MAX_PICTURES,
    UnreadablePicture,
    decode,
    is_storage,
)
from flux2_lora_edit.remote.pictures.probe import picture_size

NOISE = np.random.default_rng(0).random((96, 64, 3), dtype=np.float32)


def opened(encoded: tuple[str, str]) -> Image.Image:
    head, data = encoded[0].split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert head == f"data:image/{image.format.lower()};base64"
    return image


def test_a_png_of_the_clipped_and_rounded_values() -> None:
    values = np.array([[-1.0, 0.0, 0.4999, 0.5, 1.0, 7.0, np.nan, np.inf, -np.inf]])
    encoded = encode(np.repeat(values[..., None], 3, axis=2), "image_1")
    pixels = np.asarray(opened(encoded))[0, :, 0]
    assert pixels.tolist() == [0, 0, 127, 128, 255, 255, 0, 255, 0]
    assert encoded[1] == ""


def test_every_eight_bit_value_survives_the_way_there_and_back() -> None:
    ramp = (np.arange(256, dtype=np.float32) / 255).reshape(16, 16, 1).repeat(3, axis=2)
    buffer = io.BytesIO()
    opened(encode(ramp, "image_1")).save(buffer, "PNG")
    assert np.array_equal(decode(buffer.getvalue()).rgb, ramp)


def test_alpha_is_laid_on_white_and_grey_becomes_rgb() -> None:
    rgba = np.array([[[1, 0, 0, 1], [1, 0, 0, 0.5], [1, 0, 0, 0]]], dtype=np.float32)
    assert np.asarray(opened(encode(rgba, "i")))[0].tolist() == [
        [255, 0, 0], [255, 128, 128], [255, 255, 255],
    ]  # fmt: skip
    assert opened(encode(np.full((2, 3, 1), 0.2), "i")).mode == "RGB"


def test_over_the_cap_it_is_webp_without_loss_then_jpeg() -> None:
    smooth = np.linspace(0, 1, 256 * 256 * 3, dtype=np.float32).reshape(256, 256, 3)
    size = len(opened_bytes(encode(smooth, "i")))
    webp = encode(smooth, "image_2", size - 1)
    assert opened(webp).format == "WEBP" and "image_2 was sent as lossless WebP" in webp[1]
    assert np.array_equal(
        np.asarray(opened(webp).convert("RGB")), np.asarray(opened(encode(smooth, "i")))
    )
    jpeg = encode(NOISE, "image_2", 9000)
    assert opened(jpeg).format == "JPEG" and "JPEG of quality" in jpeg[1]
    assert len(opened_bytes(jpeg)) <= 9000
    with pytest.raises(InvalidInput, match="does not fit"):
        encode(NOISE, "image_2", 300)


def opened_bytes(encoded: tuple[str, str]) -> bytes:
    return base64.b64decode(encoded[0].split(",", 1)[1])


def test_too_many_pixels_or_no_picture_at_all() -> None:
    huge = np.broadcast_to(np.float32(0), (8000, 4001, 3))
    with pytest.raises(InvalidInput, match="4001 x 8000 pixels; 32 MP"):
        encode(huge, "image_3")
    for shape in ((4, 4), (4, 4, 2), (0, 4, 3), (1, 4, 4, 3)):
        with pytest.raises(InvalidInput, match="image_3"):
            encode(np.zeros(shape), "image_3")


def test_the_cap_of_a_request_is_of_all_its_pictures() -> None:
    check_request(["x" * 50, "y" * 50], 100)
    with pytest.raises(InvalidInput, match="together"):
        check_request(["x" * 50, "y" * 51], 100)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray((NOISE * 255).astype(np.uint8))


def as_float(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_the_three_formats(kind: str) -> None:
    data = saved(RGB, kind, **({"lossless": True} if kind == "WEBP" else {}))
    picture = decode(data)
    assert picture.mask is None
    assert picture.rgb.dtype == np.float32 and picture.rgb.shape == (96, 64, 3)
    assert np.array_equal(picture.rgb, as_float(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
def test_modes_without_alpha(mode: str) -> None:
    image = RGB.quantize(16) if mode == "P" else RGB.convert(mode)
    picture = decode(saved(image, "PNG"))
    assert picture.mask is None and np.array_equal(picture.rgb, as_float(image))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_becomes_a_mask(mode: str) -> None:
    image = RGB.convert(mode)
    alpha = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (96, 1)))
    image.putalpha(alpha)
    for kind in ("PNG", "WEBP") if mode == "RGBA" else ("PNG",):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        picture = decode(saved(image, kind, **options))
        assert picture.rgb.shape == (96, 64, 3)
        assert np.allclose(picture.mask, 1 - np.asarray(alpha) / 255, atol=1e-6)
        assert np.array_equal(picture.rgb, as_float(image.convert("RGBA")))


def test_a_transparent_palette_becomes_a_mask() -> None:
    image = RGB.quantize(4)
    picture = decode(saved(image, "PNG", transparency=0))
    assert np.array_equal(picture.mask, (np.asarray(image) == 0).astype(np.float32))


def test_sixteen_bit_greys_keep_their_range_and_their_steps() -> None:
    ramp = np.linspace(0, 65535, 256).astype(">u2")
    picture = decode(png(256, 1, [ramp.tobytes()], 16, 0))
    assert np.allclose(picture.rgb[0, :, 0], ramp.astype(np.float32) / 65535)
    assert len(np.unique(picture.rgb[0, :, 0])) == 256
    fine = np.arange(1000, 1200).astype(">u2")
    assert len(np.unique(decode(png(200, 1, [fine.tobytes()], 16, 0)).rgb)) == 200


def test_sixteen_bit_rgb_keeps_its_range() -> None:
    line = b"".join(struct.pack(">HHH", v, v, v) for v in range(0, 65536, 257))
    picture = decode(png(256, 1, [line], 16, 2))
    assert np.allclose(picture.rgb[0, :, 1], np.arange(256) / 255, atol=1 / 255)


def test_cmyk_is_turned_into_rgb() -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    picture = decode(saved(flat.convert("CMYK"), "JPEG", quality=95))
    assert np.allclose(picture.rgb.mean(axis=(0, 1)) * 255, (200, 40, 90), atol=6)


def test_exif_orientation_is_honoured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees
    image = Image.new("RGB", (64, 32), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 32, 32))  # the left half is white
    picture = decode(saved(image, "JPEG", exif=exif, quality=95))
    assert picture.rgb.shape == (64, 32, 3)
    assert picture.rgb[:20].mean() > 0.95 and picture.rgb[-20:].mean() < 0.05


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=[second], **options)
    assert decode(data).rgb[0, 0].tolist() == [1, 0, 0]


def bomb(width: int, height: int) -> bytes:
    data = bytearray(png(1, 1, [b"\0\0\0"]))
    header = struct.pack(">II", width, height)
    data[16:24] = header
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words", "whole"),
    [
        (b"", "empty", False),
        (b"<html>", "neither PNG, JPEG nor WebP", True),
        (b"GIF89a" + b"\0" * 40, "neither", True),
        (b"\x89PNG\r\n\x1a\n", "only begins", True),
        (saved(RGB, "PNG")[:800], "damaged or cut", False),
        (saved(RGB, "JPEG")[:800], "damaged or cut", False),
        (bomb(9000, 9000), "9000 x 9000", True),
        (bomb(60000, 60000), "absurd size", True),
    ],
)
def test_what_is_not_decoded(data: bytes, words: str, whole: bool) -> None:
    with pytest.raises(UnreadablePicture, match=words) as caught:
        decode(data)
    assert caught.value.whole is whole


def test_the_cap_on_pixels_is_looked_at_before_decoding() -> None:
    with pytest.raises(UnreadablePicture, match="64 x 96"):
        decode(saved(RGB, "PNG"), max_pixels=64 * 96 - 1)
    assert decode(saved(RGB, "PNG"), max_pixels=64 * 96).rgb.shape == (96, 64, 3)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_damaged_picture_is_only_ever_our_error(kind: str, data: st.DataObject) -> None:
    raw = bytearray(saved(RGB.crop((0, 0, 16, 16)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        picture = decode(bytes(raw[:cut]))
    except UnreadablePicture:
        return
    assert picture.rgb.dtype == np.float32 and 0 <= picture.rgb.min() <= picture.rgb.max() <= 1


def test_the_standins_pictures_are_decided_by_seed_and_prompt() -> None:
    for kind in ("png", "jpeg", "webp"):
        assert Image.open(io.BytesIO(draw(24, 16, 1, "a", kind))).format == kind.upper()
        assert decode(draw(24, 16, 1, "a", kind)).rgb.shape == (16, 24, 3)
    assert draw(24, 16, 1, "a") == draw(24, 16, 1, "a")
    assert len({draw(24, 16, seed, prompt) for seed in (1, 2) for prompt in "ab"}) == 4


LOCAL = PUBLIC_ONLY.allowing("http://127.0.0.1:8199")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("runcomfy.net", True), ("files.runcomfy.net", True), ("a.b.runcomfy.com", True),
        ("FILES.RUNCOMFY.NET.", True), ("runcomfy.net.evil.example", False),
        ("evilruncomfy.net", False), ("runcomfy.org", False), ("127.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_storage_hosts(host: str, allowed: bool) -> None:
    assert is_storage(host, PUBLIC_ONLY) is allowed


def test_a_standins_own_origin_and_no_other() -> None:
    assert PUBLIC_ONLY.origins == frozenset()
    assert LOCAL.origins == {"http://127.0.0.1:8199"}
    assert is_storage("127.0.0.1", LOCAL) and not is_storage("127.0.0.2", LOCAL)
    plain = PUBLIC_ONLY.allowing("http://[::1]")
    assert plain.origins == {"http://[::1]:80"}


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        ("", (32, 32)),
        ("media_jpeg_named_png", (48, 32)),
        ("media_webp_named_png", (48, 32)),
        ("media_page", None),
        ("media_empty", None),
        ("media_404_always", None),
        ("media_closed", None),
        ("media_redirect_inside", None),
        ("media_signature_alone", None),
    ],
)
def test_the_size_of_a_picture_on_the_web(
    standin: Standin, fault: str, size: tuple[int, int] | None
) -> None:
    account = standin.state.account(new_token(), fault or "none", Timing(0, 0))
    job = standin.state.new_job(account, MODEL, payload())
    url = f"{standin.origin}/media/{job.id}/0.png?X-Signature=topsecret"
    assert picture_size(url, policy_of(standin), lambda: None) == size


def a_job_of(standin: Standin, folder: Path, fault: str) -> Job:
    """A job at the stand-in, submitted, followed and fetched."""
    token = new_token()
    standin.state.account(token, fault, Timing(0, 0))
    job = Job(context_at(standin, folder, token), MODEL, payload())

    async def whole() -> None:
        await job.submit()
        await job.fetch(await job.follow())

    asyncio.run(whole())
    return job


def test_a_result_of_thousands_of_pictures_gives_the_first_and_says_so(
    standin: Standin, tmp_path: Path
) -> None:
    job = a_job_of(standin, tmp_path, "result_4096_pictures")
    assert len(job.pictures) == MAX_PICTURES == 16
    notice = job.notice
    assert "4080 of 4096 pictures" in notice and "Open the result on RunComfy" in notice


def test_the_pictures_of_a_result_have_one_cap_on_pixels(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of 32 x 32 fit; what does not is left out, and what was taken is delivered."""
    monkeypatch.setattr(media, "MAX_PIXELS", 32 * 32 * 2 + 5)
    job = a_job_of(standin, tmp_path, "result_4096_pictures")
    assert len(job.pictures) == 2 and "4094 of 4096" in job.notice
    job = a_job_of(standin, tmp_path, "result_two_pictures")
    assert len(job.pictures) == 2 and job.notice == ""
    sizes = iter([(40, 60), (8, 8)])
    original = standin._picture
    monkeypatch.setattr(standin, "_picture", lambda job: draw(*next(sizes), 1, "p"))
    job = a_job_of(standin, tmp_path, "result_two_pictures")
    assert [p.rgb.shape for p in job.pictures] == [(8, 8, 3)] and "1 of 2" in job.notice
    monkeypatch.setattr(standin, "_picture", original)
    monkeypatch.setattr(media, "MAX_PIXELS", 32 * 32 - 1)
    with pytest.raises(MediaError, match="32 x 32"):
        a_job_of(standin, tmp_path, "result_two_pictures")


def test_a_picture_that_cannot_be_read_keeps_the_request_open_and_loses_no_other(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [draw(32, 32, 1, "p"), draw(8, 8, 1, "p")]
    for bad in (0, 1):
        each = iter([b"no picture" if n == bad else data for n, data in enumerate(whole)])
        monkeypatch.setattr(standin, "_picture", lambda job, each=each: next(each))
        job = a_job_of(standin, tmp_path, "result_two_pictures")
        assert [p.rgb.shape[0] for p in job.pictures] == [8 if bad == 0 else 32]
        assert not job.is_whole and "One of 2 pictures" in job.notice
        assert "neither PNG" in job.notice and job.notice.endswith(job.request_id)
    monkeypatch.setattr(standin, "_picture", lambda job: b"no picture")
    with pytest.raises(MediaError, match="neither PNG"):
        a_job_of(standin, tmp_path, "result_two_pictures")


@contextmanager
def served(head: bytes, pieces: Iterable[bytes]) -> Iterator[str]:
    """One answer at an address, for as long as anybody reads it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + head)
            for piece in pieces:
                connection.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1600 900\n%%EndComments\n"


@pytest.mark.parametrize(
    ("head", "rest"),
    [(EPS, [b"%" + b"a" * 65_000] * 40), (b"\xff\xd8\xff\xe0\0\2" + b"\xff\xe1\0\2" * 200_000, []),
     (b"BM" + b"\0" * 4000, []), (b"GIF89a" + b"\1" * 4000, []),
     (b"II*\0\x08\0\0\0", [b"\xff" * 900_000]),
     (b"\x89PNG\r\n\x1a\n" + b"\0" * 12, []), (b"RIFF\0\0\0\0WEBPVP9 " + b"\0" * 40, []),
     (b"\xff\xd8\xff" + b"\xff" * 600_000, []), (b"", [])],
)  # fmt: skip
def test_no_size_of_anything_but_three_formats(
    head: bytes, rest: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No decoder of Pillow's sees a byte of it: EPS once took 58 s of CPU."""
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr(ImageFile, "Parser", None)
    with served(head, rest) as origin:
        assert picture_size(f"{origin}/a.png", PUBLIC_ONLY.allowing(origin), lambda: None) is None


def test_the_size_comes_with_the_first_piece_however_long_the_rest() -> None:
    with served(saved(RGB, "JPEG"), iter(lambda: time.sleep(0.01) or b"\0" * 1000, None)) as origin:
        size = picture_size(f"{origin}/a.jpg", PUBLIC_ONLY.allowing(origin), lambda: None)
        assert size == (64, 96)


@pytest.mark.parametrize("error", [RecursionError, MemoryError, KeyError, ValueError])
def test_whatever_goes_wrong_is_an_unknown_size(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def breaks(head: bytes) -> None:
        raise error("no")

    monkeypatch.setattr(probe, "size_of", breaks)
    with served(saved(RGB, "PNG"), []) as origin:
        assert picture_size(f"{origin}/a.png", PUBLIC_ONLY.allowing(origin), lambda: None) is None


def test_a_stop_ends_the_look_at_a_picture(standin: Standin) -> None:
    def stop() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        picture_size(f"{standin.origin}/media/x/0.png", policy_of(standin), stop)
