"""The application: its routes, and what they need.

Nothing here imports Dagster, torch or transformers; ``quire serve`` starts it.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import store.documents
import store.search
import store.uploads
from core.errors import BudgetError, InputError
from core.geometry import Box
from core.search import QueryError, SearchUnavailableError
from core.text import visible
from core.work import Status
from resources.database import DatabaseAccess, DatabaseUnavailableError
from resources.image_files import StoredFiles
from resources.text_search import TextSearch
from store.database import Db
from web.guard import Guard, Room
from web.limits import LIMITS, Access, Places
from web.metrics import Metrics
from web.models import (
    DiskModel,
    DocumentModel,
    DocumentsResponse,
    HealthResponse,
    IndexModel,
    ProbeModel,
    Reason,
    SearchRequest,
    SearchResponse,
    UploadResponse,
)
from web.pictures import NoPictureError, Pictures
from web.uploads import UploadError, free_bytes, require_room, shown_name, take

log = logging.getLogger("quire.web")

DESCRIPTION = """\
Search in everything that Quire has read, by meaning and by words, with the place on the page.

Without an API key the service answers to this machine alone. With one, every request brings it as
`Authorization: Bearer KEY` or `X-API-Key: KEY`. Errors are `{"reason": "..."}`.
"""

UNKNOWN = "no document has this id"

Responses = dict[int | str, dict[str, Any]]


def _refusals(*statuses: int) -> Responses:
    """What a route may answer besides what it is for, for its description."""
    told = {
        400: "The request is no HTTP that is understood.",
        401: "The API key is missing or wrong.",
        404: "There is no such document or page.",
        408: "The upload took too long.",
        413: "The body is too large.",
        415: "The body is no PDF.",
        421: "Without a key the service answers to localhost alone.",
        422: "Something of the request cannot be understood; the reason says what.",
        500: "Something went wrong in the service.",
        503: "The service cannot answer now.",
        507: "There is too little room on the disk.",
    }
    wanted = sorted({400, 401, 413, 421, 500, *statuses})
    return {status: {"model": Reason, "description": told[status]} for status in wanted}


def create_app(
    search: TextSearch, database: DatabaseAccess, access: Access, places: Places
) -> ASGIApp:
    """The service, guarded.

    Args:
        search: What answers queries; closed when the service ends.
        database: Where the names of uploads are kept; everything else only reads.
        access: Who may ask.
        places: Where files are.
    """
    metrics = Metrics()
    images = StoredFiles(places.store_url)
    pictures = Pictures(images)

    @contextlib.asynccontextmanager
    async def alive(app: FastAPI) -> AsyncGenerator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = LIMITS.threads
        health = await run_in_threadpool(search.health)  # the first search need not load anything
        for trouble in filter(None, (health.database, health.encoder)):
            log.warning("%s", visible(trouble))
        yield
        search.close()

    app = FastAPI(
        title="Quire",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # its page is a script from the network
        redoc_url=None,
        lifespan=alive,
        dependencies=[
            Depends(HTTPBearer(auto_error=False, description="The API key.")),
            Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
        ],
    )
    _explain_errors(app)

    def read(work: Any) -> Any:
        return search.connections.run(work)

    @app.post("/search", responses=_refusals(422, 503), tags=["search"])
    def search_passages(asked: SearchRequest) -> SearchResponse:
        """Passages by meaning and by words: exactly `top_k`, or fewer and the reason.

        `degraded` says what was not looked at. An answer that says nothing there saw everything.
        """
        answer = search.search(asked.parsed())
        metrics.answered(answer)
        return SearchResponse.of(answer, LIMITS.boxes)

    @app.get("/documents", responses=_refusals(422, 503), tags=["documents"])
    def list_documents(
        limit: Annotated[int, Query(ge=1, le=LIMITS.listed)] = 50,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> DocumentsResponse:
        """Documents, the latest first, with how many of their pages have been read."""

        def work(db: Db) -> list[store.search.ListedDocument]:
            chunk_set = store.search.state(db, "").chunk_set
            return store.search.documents(db, chunk_set, limit + 1, offset)

        found = read(work)
        return DocumentsResponse(
            documents=[DocumentModel.of(listed) for listed in found[:limit]],
            more=len(found) > limit,
        )

    @app.post(
        "/documents",
        status_code=202,
        responses=_refusals(408, 415, 422, 503, 507)
        | {200: {"model": UploadResponse, "description": "The document is known already."}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "The file itself, as `curl -T paper.pdf` sends it.",
                "content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
        tags=["documents"],
    )
    async def upload(
        request: Request,
        response: Response,
        name: Annotated[
            str, Query(max_length=500, description="What the file is called, for people.")
        ] = "",
        content_type: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> UploadResponse:
        """Put a PDF into the inbox, whose sensor takes it in; the same file twice is one document.

        The body is the file itself. It is written as it comes, told apart by its SHA-256, and its
        name is shown to people and nothing else.
        """
        outcome = "failed"
        size = 0
        try:
            if content_type.partition(";")[0].strip() not in ("application/pdf", ""):
                raise UploadError(
                    415, "send the file itself as the body, with Content-Type: application/pdf"
                )
            if not uploading.acquire():
                reason = "too many uploads at the same time; try again in a moment"
                raise UploadError(503, reason, LIMITS.upload_retry_s)
            try:
                length = int(request.headers.get("content-length", "0"))
                await run_in_threadpool(require_room, places.inbox, length)
                uploaded = await take(request.stream(), places.inbox)
            finally:
                uploading.release()
            size = uploaded.size_bytes

            def note() -> bool:
                """Keep the name; whether the document is known."""
                with database.connect() as db:
                    if shown := shown_name(name):
                        store.uploads.remember(db, uploaded.document_id, shown)
                    known = store.documents.get(db, [uploaded.document_id])
                return bool(known) and known[0].status != Status.FAILED

            known = await run_in_threadpool(note)
            outcome = "known" if known else "waiting"
        except UploadError as refusal:
            outcome = f"refused {refusal.status}"
            raise HTTPException(refusal.status, str(refusal), refusal.headers) from refusal
        finally:
            metrics.uploaded(outcome, size)
        response.status_code = 200 if known else 202
        return UploadResponse(
            document_id=uploaded.document_id,
            size_bytes=size,
            state="known" if known else "waiting",
        )

    uploading = Room(LIMITS.uploads)

    @app.get(
        "/pages/{document_id}/{page}/image",
        response_class=Response,
        responses=_refusals(404, 422, 503)
        | {
            200: {
                "description": "PNG. `X-Quire-Dpi` is the resolution that it has.",
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            },
            304: {"description": "What the client has is still it."},
        },
        tags=["documents"],
    )
    def page_image(
        document_id: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
        page: Annotated[int, Path(ge=1, le=100_000)],
        request: Request,
        dpi: Annotated[
            int,
            Query(
                ge=LIMITS.least_dpi,
                le=LIMITS.most_dpi,
                description="A large page is rendered at fewer.",
            ),
        ] = LIMITS.dpi,
        boxes: Annotated[
            str,
            Query(
                max_length=4_000,
                description="What is highlighted, in points: x0,y0,x1,y1;x0,y0,x1,y1",
                examples=["72,90,130,102"],
            ),
        ] = "",
    ) -> Response:
        """A page as a picture, with parts of it highlighted; hits bring the address of theirs."""
        parsed = _boxes(boxes)
        version = f"{document_id}:{page}:{dpi}:{parsed}"
        tag = f'"{hashlib.sha256(version.encode()).hexdigest()[:24]}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
        (document, *_) = read(lambda db: store.documents.get(db, [document_id])) or [None]
        if document is None:
            raise HTTPException(404, UNKNOWN)
        if page > document.page_count:
            raise HTTPException(404, f"the document has {document.page_count} pages")
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        picture = pictures.of(document.file_key, page, dpi, parsed)
        metrics.pictured(cached=picture.cached)
        headers["X-Quire-Dpi"] = f"{picture.dpi:.0f}"
        return Response(picture.png, media_type="image/png", headers=headers)

    @app.get(
        "/health",
        responses=_refusals()
        | {503: {"model": HealthResponse, "description": "Something that is needed is bad."}},
        tags=["service"],
    )
    def health(response: Response) -> HealthResponse:
        """Ask the database, the encoder, the index and the disk, just now; nothing is changed."""
        found = search.health()
        if found.database:
            log.warning("the database: %s", visible(found.database))
        free = free_bytes(places.inbox)
        roomy = free >= LIMITS.free_bytes
        answered = not found.database
        told = HealthResponse(
            status="ok" if answered and not found.encoder and roomy else "bad",
            database=ProbeModel(
                ok=answered, reason="" if answered else "the database does not answer"
            ),
            encoder=ProbeModel(ok=not found.encoder and answered, reason=found.encoder),
            index=IndexModel(
                ok=bool(found.index_version),
                version=found.index_version,
                approximate=found.indexed,
                embedded=found.embedded,
            ),
            disk=DiskModel(
                ok=roomy,
                free_bytes=free,
                least_bytes=LIMITS.free_bytes,
                reason="" if roomy else "too little room is left; uploads are refused",
            ),
        )
        response.status_code = 200 if told.status == "ok" else 503
        return told

    @app.get(
        "/metrics",
        response_class=Response,
        responses=_refusals()
        | {
            200: {
                "description": "Prometheus's text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
        tags=["service"],
    )
    def prometheus() -> Response:
        """Counters for Prometheus; no name of a document and no word of a query is in them."""
        coverage = None
        with contextlib.suppress(DatabaseUnavailableError, SearchUnavailableError):
            coverage = search.coverage()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(metrics.text(coverage), media_type=kind)

    return Guard(app, access, metrics.answered_request)


def _boxes(text: str) -> list[Box]:
    """Boxes as the address of a picture has them.

    Raises:
        QueryError: They are written otherwise, or too many.
    """
    number = r"-?\d{1,6}(?:\.\d{1,3})?"
    if not text:
        return []
    parts = text.split(";")
    if len(parts) > LIMITS.boxes:
        raise QueryError(f"{len(parts)} boxes are more than the {LIMITS.boxes} allowed")
    boxes: list[Box] = []
    for part in parts:
        if not re.fullmatch(rf"{number}(?:,{number}){{3}}", part, re.ASCII):
            raise QueryError("boxes are written as x0,y0,x1,y1;x0,y0,x1,y1 in points")
        x0, y0, x1, y1 = (float(side) for side in part.split(","))
        boxes.append((x0, y0, x1, y1))
    return boxes


def _explain_errors(app: FastAPI) -> None:
    """Have every error that a client can do something about answered with a reason."""

    def reply(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"reason": reason}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not repeated: it may be anything.
        told = [
            f"{'.'.join(str(part) for part in each['loc'][1:]) or 'body'}: {each['msg']}"
            for each in error.errors()[:3]
        ]
        return reply(422, visible("; ".join(told))[:500])

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        words = {404: "there is nothing at this address", 405: "this address takes another method"}
        detail = str(error.detail)
        if detail in ("Not Found", "Method Not Allowed"):
            detail = words[error.status_code]
        return reply(error.status_code, detail, dict(error.headers or {}))

    @app.exception_handler(QueryError)
    async def unclear(request: Request, error: QueryError) -> JSONResponse:
        return reply(422, visible(str(error)))

    @app.exception_handler(SearchUnavailableError)
    @app.exception_handler(NoPictureError)
    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        return reply(503, visible(str(error)), {"Retry-After": "2"})

    @app.exception_handler(DatabaseUnavailableError)
    async def no_database(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        log.warning("the database: %s", visible(str(error)))
        return reply(503, "the database does not answer", {"Retry-After": "5"})

    @app.exception_handler(InputError)
    @app.exception_handler(BudgetError)
    async def unreadable(request: Request, error: Exception) -> JSONResponse:
        return reply(422, visible(str(error)))
