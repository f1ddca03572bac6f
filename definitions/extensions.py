"""Lists the extensions of modules, and finds all URLs of a module."""

#: The extensions that an import or a URL of a module may leave out.
EXECUTABLE_EXTENSIONS = (".tsx", ".ts", ".jsx", ".js")
#: The extensions of all modules. Imports and URLs can't leave out the last three.
CODE_EXTENSIONS = (*EXECUTABLE_EXTENSIONS, ".mts", ".mjs", ".cts")
#: The endings that the server appends to a module's path to find the module's file. If several
#: endings lead to a file, the first of them counts.
MODULE_ENDINGS = ("", *EXECUTABLE_EXTENSIONS)


def stem(path: str) -> str:
    """Returns a module's path without its executable extension. Returns any other path
    unchanged."""
    for extension in EXECUTABLE_EXTENSIONS:
        if path.endswith(extension):
            return path.removesuffix(extension)
    return path


def module_spellings(module_url: str) -> list[str]:
    """Returns all URLs that may refer to a module: its URL without the executable extension, and
    this URL with each executable extension."""
    name = stem(module_url)
    return [name + ending for ending in MODULE_ENDINGS]
