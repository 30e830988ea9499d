"""What goes in and out over HTTP, with examples."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from core.geometry import Box
from core.search import Answer, Hit, Query, SearchSpec, parse_query
from core.text import inert
from store.search import ListedDocument

SPEC = SearchSpec()


class Reason(BaseModel):
    """Why a request was not answered."""

    reason: str = Field(examples=["top_k is 1 to 100, not 0"])


class FilterRequest(BaseModel):
    """Which passages may be found; what is left out leaves everything."""

    model_config = ConfigDict(extra="forbid")

    documents: list[str] = Field(
        default=[], max_length=SPEC.most_names, description="Ids (SHA-256) or names."
    )
    pages: str = Field(default="", max_length=30, description="5, 3-7, 3- or -7.", examples=["3-7"])
    languages: list[str] = Field(
        default=[],
        max_length=SPEC.most_names,
        description="Three letters each.",
        examples=[["eng"]],
    )
    kinds: list[Literal["text_layer", "ocr", "hybrid"]] = Field(
        default=[], description="How the text of the page was got."
    )
    since: str = Field(
        default="",
        max_length=10,
        description="Received on this day (UTC) or later.",
        examples=["2026-01-31"],
    )
    until: str = Field(default="", max_length=10, description="On this day or earlier.")


class SearchRequest(BaseModel):
    """What is looked for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "query": "western blot loading control",
                    "top_k": 5,
                    "filters": {"pages": "1-10", "languages": ["eng"]},
                }
            ]
        },
    )

    query: str = Field(
        max_length=4 * SPEC.most_letters,
        description='Words; "in quotes" for a phrase, -word for without, or.',
    )
    top_k: int = Field(default=SPEC.top_k, ge=1, le=SPEC.most_hits)
    filters: FilterRequest = FilterRequest()

    def parsed(self) -> Query:
        """The query as the core knows it.

        Raises:
            QueryError: See ``parse_query``.
        """
        given = self.filters.model_dump()
        return parse_query(self.query, top_k=self.top_k, **given)


class PartModel(BaseModel):
    """What one channel contributed to a hit's score."""

    channel: Literal["dense", "words"]
    rank: int = Field(description="The place there, from 1.")
    score: float = Field(description="A cosine for dense, cover density for words.")
    share: float = Field(description="What it adds to the score: weight / (60 + rank).")


class SnippetModel(BaseModel):
    """A few lines of a passage. It is plain text, and has to be escaped like any other."""

    text: str
    marks: list[tuple[int, int]] = Field(description="Start and end of the words asked for.")
    begins: bool = Field(description="Whether it begins where the passage begins.")
    ends: bool


class HitModel(BaseModel):
    """One passage of an answer."""

    rank: int
    score: float = Field(description="Only its order within one answer means anything.")
    parts: list[PartModel]
    document_id: str
    document: str = Field(description="The name it was received under; a stranger wrote it.")
    page: int
    chunk_id: str
    start_char: int = Field(description="Where the passage begins in the page's text.")
    end_char: int
    kind: str
    language: str
    snippet: SnippetModel
    word_boxes_pt: list[Box] = Field(description="Words asked for: x0, y0, x1, y1 in points.")
    passage_boxes_pt: list[Box] = Field(description="One box per line of the passage.")
    image: str = Field(description="The page with the passage highlighted, below this address.")

    @classmethod
    def of(cls, hit: Hit, boxes: int) -> Self:
        """A hit as it goes out; ``boxes``: how many the picture may highlight."""
        shown = (hit.highlight.words or hit.highlight.passage)[:boxes]
        marked = ";".join(",".join(f"{side:.0f}" for side in box) for box in shown)
        return cls(
            rank=hit.rank,
            score=hit.score,
            parts=[
                PartModel(channel=p.channel.value, rank=p.rank, score=p.score, share=p.share)
                for p in hit.parts
            ],
            document_id=hit.document_id,
            document=inert(hit.document),
            page=hit.page,
            chunk_id=hit.chunk_id,
            start_char=hit.start_char,
            end_char=hit.end_char,
            kind=hit.kind,
            language=hit.language,
            snippet=SnippetModel(
                text=hit.snippet.text,
                marks=list(hit.snippet.marks),
                begins=hit.snippet.begins,
                ends=hit.snippet.ends,
            ),
            word_boxes_pt=list(hit.highlight.words),
            passage_boxes_pt=list(hit.highlight.passage),
            image=f"/pages/{hit.document_id}/{hit.page}/image?boxes={marked}",
        )


class ChannelModel(BaseModel):
    """What one channel did for an answer."""

    name: Literal["dense", "words"]
    ran: bool
    method: str = Field(description="exact, hnsw, full text; empty where it did not run.")
    found: int = Field(description="Passages that it ranked.")
    loss: str = Field(description="Why it did not run, or what it did not look at.")


class SearchResponse(BaseModel):
    """An answer: exactly ``top_k`` hits, or fewer and a reason."""

    query: str
    top_k: int
    hits: list[HitModel]
    reason: str = Field(
        description="Why there are fewer than top_k; empty where there are as many.",
        examples=["only 3 passages match the filter"],
    )
    channels: list[ChannelModel]
    degraded: list[str] = Field(
        description="What was not looked at, one sentence each; empty for a whole answer.",
        examples=[["12 pages not read yet"]],
    )
    index_version: str = Field(description="Changes whenever anything that can be found does.")
    seconds: float
    cached: bool

    @classmethod
    def of(cls, answer: Answer, boxes: int) -> Self:
        """An answer as it goes out."""
        return cls(
            query=answer.query.text,
            top_k=answer.query.top_k,
            hits=[HitModel.of(hit, boxes) for hit in answer.hits],
            reason=answer.reason,
            channels=[
                ChannelModel(
                    name=c.name.value, ran=c.ran, method=c.method, found=c.found, loss=c.loss
                )
                for c in answer.channels
            ],
            degraded=list(answer.degraded),
            index_version=answer.index_version,
            seconds=answer.seconds,
            cached=answer.cached,
        )


class DocumentModel(BaseModel):
    """A document as it is listed."""

    document_id: str
    name: str = Field(description="The name it was received under; a stranger wrote it.")
    title: str
    size_bytes: int
    pages: int
    status: Literal["ok", "degraded", "failed"]
    reason: str = Field(description="What is wrong with the file; empty where nothing is.")
    received_at: datetime
    pages_read: int
    passages: int

    @classmethod
    def of(cls, listed: ListedDocument) -> Self:
        """A document as it goes out."""
        told = {"name": inert(listed.name), "title": inert(listed.title)}
        return cls.model_validate({**vars(listed), **told, "reason": inert(listed.reason)})


class DocumentsResponse(BaseModel):
    """Documents, the latest first."""

    documents: list[DocumentModel]
    more: bool = Field(description="Whether there are further ones after these.")


class UploadResponse(BaseModel):
    """What became of an upload."""

    document_id: str = Field(description="SHA-256 of the file.")
    size_bytes: int
    state: Literal["waiting", "known"] = Field(
        description="In the inbox, to be taken in by its sensor; or known already, nothing to do."
    )


class ProbeModel(BaseModel):
    """One thing that the service needs."""

    ok: bool
    reason: str = ""


class IndexModel(BaseModel):
    """What is searched."""

    ok: bool
    version: str
    approximate: bool = Field(description="Whether an HNSW index serves wide searches.")
    embedded: bool = Field(description="Whether the encoder has vectors here.")


class DiskModel(BaseModel):
    """The disk that uploads go to."""

    ok: bool
    free_bytes: int
    least_bytes: int
    reason: str = ""


class HealthResponse(BaseModel):
    """What a probe of everything found, just now."""

    status: Literal["ok", "bad"]
    database: ProbeModel
    encoder: ProbeModel
    index: IndexModel
    disk: DiskModel
