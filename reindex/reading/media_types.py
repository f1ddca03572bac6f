"""The media types in requests for files and realms."""

#: A file's bytes, as they are stored.
SOURCE = "application/vnd.card+source"
#: A card as a JSON:API document.
CARD = "application/vnd.card+json"
#: Any other document of JSON:API.
API = "application/vnd.api+json"
JSON = "application/json"
#: Many files, each as one line of JSON.
NDJSON = "application/x-ndjson"
HTML = "text/html"
JAVASCRIPT = "text/javascript"
#: Bytes of an unknown type.
BYTES = "application/octet-stream"
#: Any type. The server sends a module as JavaScript, and any other file unchanged.
ANY = "*/*"
