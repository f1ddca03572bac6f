"""The extensions of modules, and the names by which one module is known."""

#: Extensions that imports and URLs may leave out.
EXECUTABLE_EXTENSIONS = (".tsx", ".ts", ".jsx", ".js")
#: Files that are modules. References to those that are not executable include the extension.
CODE_EXTENSIONS = (*EXECUTABLE_EXTENSIONS, ".mts", ".mjs", ".cts")
#: What may follow the name of a module to make the path of its file.
MODULE_ENDINGS = ("", *EXECUTABLE_EXTENSIONS)


def stem(path: str) -> str:
    """A module's path without its extension; any other path as it is."""
    for extension in EXECUTABLE_EXTENSIONS:
        if path.endswith(extension):
            return path.removesuffix(extension)
    return path


def module_spellings(module_url: str) -> list[str]:
    """All URLs by which a module may be named: without an extension, and with each."""
    name = stem(module_url)
    return [name + ending for ending in MODULE_ENDINGS]
