"""The commands that mend: requeue what failed, rebuild a lost index."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from node.commands.options import config_option, json_option, now, print_json
from node.config_file import load
from node.entities import Instance
from node.index import Index
from node.spool import Spool, SpoolError


@click.command()
@click.argument("names", nargs=-1)
@config_option
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All FAILED jobs, all DEAD and UNSUPPORTED deliveries.",
)
@click.option("--peer", help="The DEAD and UNSUPPORTED deliveries to this peer.")
@json_option
def requeue(names: tuple[str, ...], config: Path, everything: bool, peer: str | None, as_json: bool) -> None:
    """Try FAILED jobs and deliveries that are DEAD or UNSUPPORTED again.

    NAMES are accession numbers, UIDs or job ids; --all takes everything, --peer what did not get
    to one peer. Exit code 1 where there was nothing to requeue.

    \b
    Examples:
      aenode requeue ACC12345
      aenode requeue --peer archive
      aenode requeue --all
    """
    if bool(names) + everything + (peer is not None) != 1:
        raise click.UsageError("name what to requeue: NAMES, --peer or --all")
    settings = load(config)
    if peer is not None and settings.peer(peer) is None:
        known = ", ".join(p.name for p in settings.peers) or "none is set up"
        raise click.BadParameter(f"no peer is called {peer!r}; peers: {known}", param_hint="--peer")
    with closing(Index.open(settings)) as index:
        ids = None
        if names:
            ids = [j.job.id for name in names for report in index.find(name) for j in report.jobs]
        jobs = index.requeue_jobs(now(), job_ids=ids) if peer is None else []
        deliveries = index.requeue_deliveries(now(), peer=peer, job_ids=ids)
    if as_json:
        print_json({"jobs": [job.id for job in jobs], "deliveries": [d.id for d in deliveries]})
    else:
        click.echo(f"{len(jobs)} jobs and {len(deliveries)} deliveries are tried again")
    sys.exit(0 if jobs or deliveries else 1)


@click.command()
@config_option
@json_option
def rebuild(config: Path, as_json: bool) -> None:
    """Make the index anew from the spool, after it was lost.

    Every series is routed again. Results keep their UIDs, so an archive that has them makes no
    duplicates. On an index that is whole this changes nothing. A damaged file is named and left
    where it is; exit code 1 says that there was one.

    \b
    Example:
      aenode rebuild
    """
    settings = load(config)
    damaged: list[str] = []
    with closing(Index.open(settings)) as index:
        count = index.rebuild(_readable(Spool(settings.node.data), damaged))
    if as_json:
        print_json({"instances": count, "damaged": damaged})
    else:
        for sentence in damaged:
            click.echo(sentence, err=True)
        click.echo(f"{count} instances of the spool are in the index")
    sys.exit(1 if damaged else 0)


def _readable(spool: Spool, damaged: list[str]) -> Iterator[Instance]:
    for path in spool.paths():
        try:
            yield spool.read(path)
        except (SpoolError, OSError) as error:
            damaged.append(str(error))
