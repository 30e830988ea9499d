"""The text encoder of this deployment as Dagster configures it; see ``resources.text_encoder``."""

import dagster as dg
from pydantic import Field, PrivateAttr

from core.text_encoders import (
    TextEncoder,
    TextEncoderChoice,
    TextEncoderSpec,
    Tokens,
    each_text_encoder,
    parse_text_encoder,
)
from resources.image_files import StoredFiles
from resources.remote_text_encoder import RemoteAccess
from resources.text_encoder import (
    describe_text_encoder,
    open_text_encoder,
    open_tokens,
    serving_of,
)


class TextEncoderResource(dg.ConfigurableResource):
    """The text encoder of this deployment, or the two between which it changes.

    The model is loaded when the first text is encoded, in the process that does it.
    """

    spec: str = "minilm"
    """As ``core.text_encoders.parse_text_encoder`` reads it."""

    store_url: str
    """The image store with what checkpoints were converted to."""

    cores: int = 1
    """Threads of computation."""

    remote_hosts: str = Field(
        default="", description="Hosts that texts may be sent to; empty: nothing leaves."
    )
    api_key: str = Field(
        default="",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
        description="Key of the service that encodes.",
    )

    _loaded: TextEncoder | None = PrivateAttr(default=None)

    def each(self) -> "tuple[TextEncoderResource, ...]":
        """The encoders that the setting names, one by one."""
        kept = self.model_dump(exclude={"spec"})
        return tuple(TextEncoderResource(spec=one, **kept) for one in each_text_encoder(self.spec))

    def choice(self) -> TextEncoderChoice:
        """What the user wrote.

        Raises:
            EncoderError: Nothing that can be read.
        """
        return parse_text_encoder(self.spec)

    def describe(self) -> TextEncoderSpec:
        """What the encoder is, without loading it or asking anybody.

        Raises:
            EncoderError: It cannot be found, or has not been converted.
        """
        return describe_text_encoder(self.spec, StoredFiles(self.store_url))

    def serving(self, switched: str) -> "TextEncoderResource":
        """The one that serves; see ``resources.text_encoder.serving_of``."""
        each = {one.spec: one for one in self.each()}
        return each[serving_of(list(each), StoredFiles(self.store_url), switched)]

    def tokens(self) -> Tokens:
        """What it reads, without its weights.

        Raises:
            EncoderError: As for ``describe``.
        """
        return open_tokens(self.spec, StoredFiles(self.store_url))

    def load(self) -> TextEncoder:
        """The encoder, loaded once in this process.

        Raises:
            EncoderError: It cannot be found, loaded or reached, or is not allowed to be.
        """
        if self._loaded is None:
            self._loaded = open_text_encoder(
                self.spec,
                StoredFiles(self.store_url),
                cores=self.cores,
                remote=RemoteAccess(self.remote_hosts, self.api_key),
            )
        return self._loaded
