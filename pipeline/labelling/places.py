"""Places, as one process sees them: input, output and weights, with the rights to use them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.errors import ErrorCode, PipelineError, StoreError
from pipeline.inputs.listing import Reading, Sources
from pipeline.inputs.source import Source
from pipeline.labelling.finding import Finding, change, note, ok
from pipeline.labelling.network import Network, check_weights, describe_network
from pipeline.labelling.store_words import StoreWords, endpoint_of, words_for
from pipeline.settings.label import LabelSettings
from pipeline.store.cells import read_image
from pipeline.store.probe import probe_conditional_put
from pipeline.store.storage import Storage

DRIVER = "the driver"
# A place that does not answer is found out about soon enough.
_ATTEMPTS = 2
_REMEDIES = {
    ErrorCode.NOT_FOUND: "name another, or create it",
    ErrorCode.FORBIDDEN: "check the credentials ({credentials}) and that they may {rights}",
    ErrorCode.CHANGED: "wait until nobody writes to the input",
    ErrorCode.TOO_MANY_BYTES: "raise max_image_bytes, or leave it: its row will say so",
}
_NO_ANSWER = "check {endpoint} and that the network lets {where} reach it"


@dataclass(frozen=True)
class Places:
    """What a process needs to look at the places; travels to workers.

    `image` is one image of the input, None before one is known.
    """

    storage: Storage
    input: str
    output: str
    max_image_bytes: int
    reading: Reading
    image: Source | None = None

    @staticmethod
    def of(settings: LabelSettings) -> "Places":
        """Take the places from the settings. Raises SettingError."""
        storage = settings.storage()
        return Places(
            replace(storage, attempts=min(_ATTEMPTS, storage.attempts)),
            settings.input,
            settings.output,
            settings.max_image_bytes,
            Reading(form=settings.input_form, image_column=settings.image_column),
        )

    def first_image(self, threads: int) -> Source | None:
        """Find one image of the input. Raises InputError."""
        place = (self.input, self.output, threads)
        sources = Sources(self.storage.for_input(), *place, self.reading)
        # What is refused already is a row, and says nothing of rights.
        return next((source for source in sources if source.refusal is None), None)


def look(places: Places, where: str) -> list[Finding]:
    """Read an image, list and write the output: as the process that calls may.

    Args:
        places: With an image.
        where: Whose rights they are: `DRIVER`, or a node's name.
    """
    return [*_look_at_input(places, where), *_look_at_output(places, where)]


def _look_at_input(places: Places, where: str) -> Iterator[Finding]:
    if places.image is None:
        return
    subject = f"input, {where}"
    try:
        place = (places.image.place, places.image.version, places.max_image_bytes)
        data = read_image(places.storage.for_input(), *place)
    except StoreError as error:
        yield _input_refused(subject, error, where, places)
    else:
        yield ok(subject, f"readable: {places.image.uri}, {len(data):,} bytes")


def _look_at_output(places: Places, where: str) -> Iterator[Finding]:
    subject = f"output, {where}"
    words = words_for(places.output)
    try:
        places.storage.children(f"{places.output}/runs")
        conditional_put = probe_conditional_put(places.storage, places.output)
    except StoreError as error:
        yield _refused(subject, error, where, places, (words, words.writes + words.ways_out))
        return
    if conditional_put:
        yield ok(subject, f"writable, with conditional PUT: {places.output}")
    else:
        yield note(
            subject,
            f"writable, but the store ignores If-None-Match: {places.output}",
            "let one process at a time write there, or use a store that honours it (AWS S3, "
            "Google, Azure, MinIO, Ceph): the lock alone keeps two writers apart",
        )


def look_for_images(places: Places, threads: int) -> tuple[Source | None, Finding]:
    """List the input as far as its first image.

    Args:
        places: Where to look.
        threads: Look-ups at a time, for manifests.
    """
    try:
        image = places.first_image(threads)
    except StoreError as error:
        return None, _input_refused("input", error, DRIVER, places)
    except PipelineError as error:
        cause = error.__cause__
        if isinstance(cause, StoreError):
            return None, _input_refused("input", cause, DRIVER, places)
        return None, change("input", str(error), "name another input")
    if image is None:
        remedy = "check the path; a folder's images are told by their endings"
        return None, change("input", f"{places.input} holds no images", remedy)
    return image, ok("input", f"listed: {places.input}")


def look_at_weights(places: Places, settings: LabelSettings) -> tuple[Network | None, Finding]:
    """Read the checkpoint and compare its hash with its record.

    Args:
        places: For the storage.
        settings: What the job was asked to do.
    """
    remedy = "give --weights a NAME.safetensors that has its NAME.json beside it"
    try:
        network = describe_network(places.storage, settings)
        check_weights(places.storage, network)
    except StoreError as error:
        words = words_for(settings.weights)
        return None, _refused("weights", error, DRIVER, places, (words, words.read))
    except PipelineError as error:
        return None, change("weights", str(error), remedy)
    record = network.checkpoint
    if network.uri is None:
        found = f"{settings.weights}: an untrained {record.network}, its masks mean nothing"
        return network, note("weights", found, remedy)
    return network, ok("weights", f"{network.uri}: {record.network}, {record.weights_sha256}")


def _input_refused(subject: str, error: StoreError, where: str, places: Places) -> Finding:
    words = words_for(places.input)
    return _refused(subject, error, where, places, (words, words.reads + words.ways_in))


def _refused(
    subject: str, error: StoreError, where: str, places: Places, wanted: tuple[StoreWords, str]
) -> Finding:
    words, rights = wanted
    if error.message.startswith("file://") and where != DRIVER:
        remedy = "put it on a disk that all nodes share, or into a bucket"
    else:
        endpoint = words.endpoint.format(getattr(places.storage, endpoint_of(words)))
        remedy = _REMEDIES.get(error.code, _NO_ANSWER).format(
            endpoint=endpoint, where=where, rights=rights, credentials=words.credentials
        )
    return change(subject, error.message, remedy)
