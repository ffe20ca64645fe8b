"""`invigil keys`: the institution's keys and recipient sets, made and changed offline. Thin.

Imports are inside the commands: `invigil --help` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.command_line import ask_secret, command_group

if TYPE_CHECKING:
    from appliance.archive.keys import RootKey
    from appliance.archive.recipient_sets import SignedSet

app = command_group("The institution's keys, made and kept offline.")

Out = Annotated[Path, typer.Option("--out", help="folder to write into; made if missing")]
Root = Annotated[Path, typer.Option("--root", help="root.key of the institution")]
Set = Annotated[Path, typer.Option("--set", help="recipient-set.json; the next one takes its place")]
Person = Annotated[
    str, typer.Option("--person", help="name, or first 8 digits or more of the key id; see invigil keys show")
]
Public = Annotated[Path, typer.Option("--representative", help="representative.json of the new key")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="read the passphrase from a file instead of asking")
]
Institution = Annotated[str, typer.Option("--institution", help="the institution's name, as in its policies")]


@app.command("root")
def keys_root(out: Out, institution: Institution, passphrase_file: PassphraseFile = None) -> None:
    """Make the institution's offline root key. It signs policies and recipient sets."""
    from appliance.archive.keys import create_root

    path = create_root(out, institution, ask_secret("passphrase", passphrase_file, twice=True))
    typer.echo(
        f"{path}: keep it offline, with a copy in another place\n{out / 'root.pub'}: goes to rooms and desks"
    )


@app.command("representative")
def keys_representative(
    out: Out,
    name: Annotated[str, typer.Option("--name", help="the person or office that may open recordings")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a representative's key. Only representatives can open recordings."""
    from appliance.archive.key_files import grouped
    from appliance.archive.keys import create_representative

    person = create_representative(out, name, ask_secret("passphrase", passphrase_file, twice=True))
    typer.echo(f"{out / 'representative.key'}: key {person.kid} of {person.name}; nobody else may have it")
    typer.echo(f"{out / 'representative.json'}: goes into the recipient set")
    typer.echo(f"fingerprint {grouped(person.fingerprint)}: read it out to who signs the set")


@app.command("recipient-set")
def keys_recipient_set(
    root: Root,
    institution: Institution,
    representative: Annotated[
        list[Path], typer.Option("--representative", help="representative.json of one person; repeat")
    ],
    version: Annotated[int, typer.Option("--version", min=1, help="1, and one more for each new set")],
    out: Annotated[Path, typer.Option("--out", help="file to write")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign the first set of representatives. Desks seal their recordings for these people alone."""
    from appliance.archive.key_files import person_words
    from appliance.archive.keys import create_recipient_set, read_representative
    from appliance.evf.canonical import canonical

    people = [read_representative(path) for path in representative]
    document = create_recipient_set(_open_root(root, passphrase_file), institution, people, version)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(canonical(document))
    typer.echo(f"{out}: recipient set {version} of {institution}, {len(people)} representatives")
    for person in people:
        typer.echo(f"  {person_words(person)}")


@app.command("add")
def keys_add(
    set_file: Set, root: Root, representative: Public, passphrase_file: PassphraseFile = None
) -> None:
    """Sign the next recipient set, with one representative more."""
    from appliance.archive.keys import read_representative
    from appliance.archive.recipient_sets import next_set

    person = read_representative(representative)
    opened, current = _open_set(set_file, root, passphrase_file)
    _replace(set_file, current, next_set(opened, current.recipients, add=[person]))


@app.command("remove")
def keys_remove(set_file: Set, root: Root, person: Person, passphrase_file: PassphraseFile = None) -> None:
    """Sign the next recipient set, without one representative."""
    from appliance.archive.recipient_sets import find_person, next_set

    opened, current = _open_set(set_file, root, passphrase_file)
    leaving = find_person(current.recipients, person)
    _replace(set_file, current, next_set(opened, current.recipients, remove=leaving))


@app.command("rotate")
def keys_rotate(
    set_file: Set, root: Root, person: Person, representative: Public, passphrase_file: PassphraseFile = None
) -> None:
    """Sign the next recipient set, one key made anew."""
    from appliance.archive.keys import read_representative
    from appliance.archive.recipient_sets import find_person, next_set

    new = read_representative(representative)
    opened, current = _open_set(set_file, root, passphrase_file)
    leaving = find_person(current.recipients, person)
    _replace(set_file, current, next_set(opened, current.recipients, add=[new], remove=leaving))


@app.command("show")
def keys_show(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="a .pub, .key, representative.json or recipient set")
    ],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Print fingerprints of a key or of a set's people.

    They are for comparing by voice; no signature is checked.
    """
    from appliance.archive.key_files import needs_passphrase, show_lines

    private = needs_passphrase(file)
    passphrase = ask_secret("passphrase", passphrase_file, twice=False) if private else ""
    for line in show_lines(file, passphrase):
        typer.echo(line)


@app.command("passphrase")
def keys_passphrase(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="root.key or representative.key")],
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None,
        typer.Option("--new-passphrase-file", help="read the new one from a file instead of asking"),
    ] = None,
) -> None:
    """Change the passphrase of a key file. Copies of the old file still open with the old one."""
    from appliance.archive.key_files import new_passphrase

    old = ask_secret("passphrase", passphrase_file, twice=False)
    new_passphrase(file, old, ask_secret("new passphrase", new_passphrase_file, twice=True))
    typer.echo(f"{file}: opens with the new passphrase; replace its copies, which open with the old one")


def _open_root(path: Path, passphrase_file: Path | None) -> RootKey:
    from appliance.archive.keys import open_root

    return open_root(path, ask_secret("passphrase", passphrase_file, twice=False))


def _open_set(set_file: Path, root: Path, passphrase_file: Path | None) -> tuple[RootKey, SignedSet]:
    from appliance.archive.recipient_sets import read_recipient_set

    opened = _open_root(root, passphrase_file)
    return opened, read_recipient_set(set_file, opened.key.public_key())


def _replace(set_file: Path, current: SignedSet, following: SignedSet) -> None:
    from appliance.archive.key_files import set_lines
    from appliance.archive.recipient_sets import replace_set

    kept = replace_set(set_file, current, following)
    head, *people = set_lines(following.recipients)
    typer.echo("\n".join([f"{set_file}: {head}", *people]))
    typer.echo(
        f"{kept}: the set before\n"
        f"next, recordings from now on: invigil provision recipients {set_file} --trust FOLDER, "
        "for the room's folder and on every desk\n"
        f"next, recordings that exist: a representative runs invigil archive rewrap --set {set_file}"
    )
