"""Determines the media types of files from their names.

This module has its own table of types, so every replica determines the same type. Python's
`mimetypes` reads tables of the operating system, which differ between machines.

A type describes the stored bytes: `style.css.gz` is gzip data, not CSS. The exception is `.svgz`
(see `described`).
"""

from pathlib import PurePosixPath

from reindex.reading.media_types import BYTES

#: Media types by extension. If the IANA registry has no type for an extension, the table has the
#: type that is in common use.
_TYPES = {
    # Code
    "ts": "text/typescript",
    "mts": "text/typescript",
    "cts": "text/typescript",
    "tsx": "text/typescript",
    "jsx": "text/jsx",
    "js": "text/javascript",
    "mjs": "text/javascript",
    "cjs": "text/javascript",
    "gts": "text/typescript+glimmer",
    "gjs": "text/javascript+glimmer",
    "wasm": "application/wasm",
    # Text and data
    "html": "text/html",
    "htm": "text/html",
    "xhtml": "application/xhtml+xml",
    "xht": "application/xhtml+xml",
    "css": "text/css",
    "txt": "text/plain",
    "text": "text/plain",
    "log": "text/plain",
    "md": "text/markdown",
    "markdown": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "ics": "text/calendar",
    "vcf": "text/vcard",
    "vtt": "text/vtt",
    "srt": "application/x-subrip",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
    "json": "application/json",
    "map": "application/json",
    "jsonld": "application/ld+json",
    "geojson": "application/geo+json",
    "ndjson": "application/x-ndjson",
    "jsonl": "application/x-ndjson",
    "webmanifest": "application/manifest+json",
    "xml": "application/xml",
    "xsl": "application/xslt+xml",
    "xslt": "application/xslt+xml",
    "rss": "application/rss+xml",
    "atom": "application/atom+xml",
    "rdf": "application/rdf+xml",
    "kml": "application/vnd.google-earth.kml+xml",
    "gpx": "application/gpx+xml",
    "mathml": "application/mathml+xml",
    # Pictures
    "png": "image/png",
    "apng": "image/apng",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jxl": "image/jxl",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "ico": "image/vnd.microsoft.icon",
    "svg": "image/svg+xml",
    "svgz": "image/svg+xml",
    # Sound and film
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "flac": "audio/flac",
    "mid": "audio/midi",
    "midi": "audio/midi",
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "ogv": "video/ogg",
    "webm": "video/webm",
    "mov": "video/quicktime",
    "mkv": "video/matroska",
    "avi": "video/x-msvideo",
    "m3u8": "application/vnd.apple.mpegurl",
    "mpd": "application/dash+xml",
    # Fonts
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "ttc": "font/collection",
    "eot": "application/vnd.ms-fontobject",
    # 3D models
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "obj": "model/obj",
    "stl": "model/stl",
    # Documents
    "pdf": "application/pdf",
    "epub": "application/epub+zip",
    "rtf": "application/rtf",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    # Archives and compressed files
    "zip": "application/zip",
    "gz": "application/gzip",
    "tgz": "application/gzip",
    "zst": "application/zstd",
    "bz2": "application/x-bzip2",
    "xz": "application/x-xz",
    "tar": "application/x-tar",
    "7z": "application/x-7z-compressed",
}
#: Types outside of `text/*` that need a charset, because a text of these types can't declare its
#: own encoding. XML types are not listed, because an XML text can declare its encoding.
_TEXTS = {"application/x-subrip", "application/yaml", "application/toml"}
_GZIP_MAGIC = b"\x1f\x8b"


def media_type(path: str) -> str:
    """Returns the media type of a file. Only the extension of its name matters. The result has no
    parameters, such as `charset`."""
    return _TYPES.get(PurePosixPath(path).suffix[1:].lower(), BYTES)


def described(path: str, data: bytes, *, as_stored: bool) -> tuple[tuple[str, str], ...]:
    """Returns the headers that describe a file's content.

    Text in UTF-8 gets a charset. Other text gets none, because a charset would override the
    encoding that the text itself may declare. If `as_stored` is set, a gzipped SVG picture
    (`.svgz`) gets the content type of gzip data. Otherwise the picture gets the content
    type of an SVG picture and the content coding gzip, so that browsers show the picture.
    """
    kind = media_type(path)
    if kind == "image/svg+xml" and data.startswith(_GZIP_MAGIC):
        if as_stored:
            return (("content-type", "application/gzip"),)
        return (("content-type", kind), ("content-encoding", "gzip"))
    is_text = kind.startswith("text/") or kind in _TEXTS
    charset = "; charset=utf-8" if is_text and _is_utf8(data) else ""
    return (("content-type", kind + charset),)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
