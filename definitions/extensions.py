"""Lists the extensions of modules, and finds all URLs of a module."""

#: Extensions that imports and URLs may leave out.
EXECUTABLE_EXTENSIONS = (".tsx", ".ts", ".jsx", ".js")
#: The extensions of all modules. Imports and URLs must spell out an extension that is not in
#: EXECUTABLE_EXTENSIONS.
CODE_EXTENSIONS = (*EXECUTABLE_EXTENSIONS, ".mts", ".mjs", ".cts")
#: The endings that are tried, in this order, to find the file of a module name.
MODULE_ENDINGS = ("", *EXECUTABLE_EXTENSIONS)


def stem(path: str) -> str:
    """Returns a module's path without its executable extension. Returns any other path
    unchanged."""
    for extension in EXECUTABLE_EXTENSIONS:
        if path.endswith(extension):
            return path.removesuffix(extension)
    return path


def module_spellings(module_url: str) -> list[str]:
    """Returns all URLs that may refer to a module, one without an extension and one with each
    executable extension."""
    name = stem(module_url)
    return [name + ending for ending in MODULE_ENDINGS]
