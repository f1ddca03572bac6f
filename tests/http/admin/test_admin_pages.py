"""Tests that every link and file of the admin's pages exists, and that every form works when a
browser sends it."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urldefrag, urljoin, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import resolve

from realms.models import Realm
from tests.support import make
from tests.support.clients.admin import PUBLISHED, make_one_row_of_everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

HOST = "http://localhost:4201"
#: Parts of the addresses of forms that end the session or delete a row. These forms are sent last,
#: because the other forms need the session and the rows.
ENDS = ("/logout/", "/delete/")


@dataclass
class Form:
    """A form of a page. A browser sends the `fields`, and the field of the clicked button from
    `buttons`."""

    page: str
    method: str
    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[tuple[str, str]] = field(default_factory=list)
    files: bool = False


class Page(HTMLParser):
    """Parses an HTML page and collects its links, files and forms."""

    def __init__(self, at: str, html: str) -> None:
        super().__init__()
        self._at = at
        self.addresses: set[str] = set()
        self.forms: list[Form] = []
        self._form: Form | None = None
        self._select = ""
        self._option: str | None = None
        self._textarea: str | None = None
        self._text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attributes}
        for name in ("href", "src", "data-popup-link"):
            if name in told and not told[name].startswith(("#", "javascript:", "mailto:")):
                self.addresses.add(self._absolute(told[name]))
        if tag == "form":
            action = self._absolute(told.get("action", ""))
            self._form = Form(self._at, told.get("method", "get").lower(), action)
            self.forms.append(self._form)
        elif self._form is not None:
            self._control(tag, told)

    def _absolute(self, address: str) -> str:
        return urldefrag(urljoin(self._at, address)).url

    def _control(self, tag: str, told: dict[str, str]) -> None:
        assert self._form is not None
        name, value, kind = told.get("name", ""), told.get("value", ""), told.get("type", "text")
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in told:
            self._form.fields.append((self._select, value))
        elif tag == "textarea":
            self._textarea, self._text = name, ""
        elif (tag == "input" and kind in ("submit", "image")) or tag == "button":
            self._form.buttons.append((name, value))
        elif tag == "input" and name and "disabled" not in told:
            chosen = kind not in ("checkbox", "radio") or "checked" in told
            if chosen:
                self._form.fields.append((name, value or ("on" if kind == "checkbox" else "")))

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = ""
        elif tag == "textarea" and self._form is not None and self._textarea:
            self._form.fields.append((self._textarea, self._text))
            self._textarea = None


@pytest.fixture
def published(source: Realm) -> Realm:
    """Makes a realm that was published twice, and a row of every model that the admin lists.
    Returns the realm."""
    make.publish(source, PUBLISHED)
    make.write(source, post__tsx=b"export const edition = 2;")
    make.publish(source, PUBLISHED)
    published = Realm.objects.get(url=PUBLISHED)
    make_one_row_of_everything(published)
    Group.objects.create(name="editors")
    return published


def _browser(user: Any) -> Client:
    browser = Client(enforce_csrf_checks=True, headers={"host": "localhost:4201"})
    browser.force_login(user)
    return browser


def _superuser() -> Any:
    return get_user_model().objects.create_superuser("root", password="root")


def _staff() -> Any:
    """Makes a staff user who has every permission. The user isn't a superuser, who would have the
    operator's rights in all realms."""
    user = get_user_model().objects.create_user("lin", password="lin", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    return user


@dataclass(frozen=True)
class Answer:
    """The answer to a request for an address, after all redirects."""

    status: int
    kind: str
    text: str


def _get(browser: Client, address: str) -> Answer:
    answer: Any = browser.get(address.removeprefix(HOST), follow=True)
    kind = answer.headers.get("content-type", "").partition(";")[0]
    text = answer.content.decode() if kind == "text/html" else ""
    answer.close()
    return Answer(answer.status_code, kind, text)


def _pages(browser: Client) -> dict[str, Answer]:
    """Follows the links from the admin's front page, and returns the answers by address. Of several
    admin pages with the same view and the same names of query parameters, only one is requested. On
    a page with a query, links that also have a query aren't followed."""
    answers: dict[str, Answer] = {}
    waiting = deque([f"{HOST}/_admin/"])
    seen: set[tuple[str, ...]] = set()
    while waiting:
        address = waiting.popleft()
        if address in answers or not address.startswith(f"{HOST}/"):
            continue
        parts = urlsplit(address)
        if parts.path.startswith("/_admin/"):
            view = resolve(parts.path).view_name
            kind = (view, *sorted(name for name, _ in parse_qsl(parts.query)))
            if kind in seen:
                continue
            seen.add(kind)
        answer = answers[address] = _get(browser, address)
        found = sorted(Page(address, answer.text).addresses)
        waiting += [each for each in found if not parts.query or not urlsplit(each).query]
    return answers


def _forms(answers: dict[str, Answer]) -> Iterator[Form]:
    for address, answer in answers.items():
        yield from Page(address, answer.text).forms


def _sent(browser: Client, form: Form, button: tuple[str, str]) -> Any:
    """Sends a form as if the user had clicked `button`. Returns the answer."""
    fields: dict[str, list[str]] = {}
    for name, value in [*form.fields, *([button] if button[0] else [])]:
        fields.setdefault(name, []).append(value)
    target = form.action.removeprefix(HOST)
    if form.method == "get":
        return browser.get(target, fields, follow=True)
    return browser.post(target, fields, follow=True)


@pytest.mark.parametrize("make_user", [_superuser, _staff])
def test_every_link_file_and_form_of_the_admin_works(published: Realm, make_user: Any) -> None:
    browser = _browser(make_user())
    answers = _pages(browser)
    assert {"text/html", "text/css", "text/javascript"} <= {each.kind for each in answers.values()}
    wrong = {at: answer.status for at, answer in answers.items() if answer.status != 200}

    forms: dict[tuple[Any, ...], tuple[Form, tuple[str, str]]] = {}
    for form in _forms(answers):
        for button in form.buttons:
            names = tuple(sorted({name for name, _ in form.fields}))
            forms[form.action, names, button] = form, button
    sent = []
    for form, button in sorted(
        forms.values(), key=lambda each: any(end in each[0].action for end in ENDS)
    ):
        answer = _sent(browser, form, button)
        sent.append(form.action)
        if answer.status_code != 200:
            wrong[f"{form.method} {form.action} {button}"] = answer.status_code
    assert wrong == {}
    # A staff user may remove only realms that the user owns, and `_staff` makes a user without
    # realms.
    removes = ("remove/",) if make_user is _superuser else ()
    for action in ("clear/", "publish/", "rollback/", *removes):
        assert [form for form in sent if form.endswith(action)], action


def test_the_rollback_form_rolls_back(published: Realm) -> None:
    browser = _browser(_superuser())
    page = f"{HOST}/_admin/realms/realm/{published.pk}/rollback/"
    [form] = [
        form
        for form in Page(page, browser.get(page.removeprefix(HOST)).content.decode()).forms
        if ("publication", "1") in form.fields
    ]
    answer = _sent(browser, form, form.buttons[0])
    assert "back to what it showed at generation 1" in answer.content.decode()
    published.refresh_from_db()
    assert published.generation == 3
