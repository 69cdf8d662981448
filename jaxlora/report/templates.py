"""The page templates that ship with the package."""

import functools

import jinja2

from jaxlora.tasks.two_hop import Cell, arrows, plain


@functools.cache
def template(name: str) -> jinja2.Template:
    """Returns a template of ``jaxlora/report``; a variable that it lacks is an error.

    Args:
      name: of the file, such as ``page.html.jinja``.

    Raises:
      jinja2.TemplateNotFound: if there is no such file.

    >>> template("page.html.jinja").name
    'page.html.jinja'
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlora", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"arrows": arrows, "named": named}
    return environment.get_template(name)


def named(word: str) -> str:
    """Returns the plain name of a cell with its code behind it; other words as is.

    Args:
      word: of a table's header.

    >>> named("R-OO")
    'familiar people, both hops in experts [R-OO]'
    """
    return f"{plain(word)} [{word}]" if word in set(Cell) else word
