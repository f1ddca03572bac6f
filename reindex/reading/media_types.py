"""The media types in the headers `Accept` and `Content-Type` of requests and responses."""

#: The bytes of a file, exactly as they are stored.
SOURCE = "application/vnd.card+source"
#: A JSON:API document with a card, or with the cards that a search found.
CARD = "application/vnd.card+json"
#: Any other JSON:API document, such as a list of a realm's files, or an error.
API = "application/vnd.api+json"
JSON = "application/json"
#: Several files, each as one line of JSON.
NDJSON = "application/x-ndjson"
HTML = "text/html"
JAVASCRIPT = "text/javascript"
#: Bytes of an unknown type.
BYTES = "application/octet-stream"
#: Any type. The server sends a module as JavaScript, and any other file unchanged. If no file has
#: the URL, the server sends the page at the URL.
ANY = "*/*"
