"""An editor that talks to the language server: pygls's own client, with the server in a process of its own."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from lsprotocol import types
from pygls.lsp.client import LanguageClient

URI = "file:///repository/.github/workflows/ci.yml"
PATIENCE = 120  # seconds, on a machine that is busy


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test with `async` as pytest takes it; it has an end."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 2 * PATIENCE))

    return run


class Editor(LanguageClient):
    """A client that keeps what the server publishes."""

    def __init__(self) -> None:
        super().__init__("test", "1")
        self.published: asyncio.Queue[types.PublishDiagnosticsParams] = asyncio.Queue()
        self.messages: list[str] = []
        self.opened: set[str] = set()
        self.capabilities: types.ServerCapabilities

        @self.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def published(params: types.PublishDiagnosticsParams) -> None:
            self.published.put_nowait(params)

        @self.feature(types.WINDOW_SHOW_MESSAGE)
        def shown(params: types.ShowMessageParams) -> None:
            self.messages.append(params.message)

    def open(self, text: str, uri: str = URI, language: str = "yaml") -> None:
        item = types.TextDocumentItem(uri, language, 1, text)
        self.text_document_did_open(types.DidOpenTextDocumentParams(item))
        self.opened.add(uri)

    def close(self, uri: str) -> None:
        self.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri)))
        self.opened.discard(uri)

    async def close_all(self) -> None:
        """Close all documents, and forget what the server has said."""
        waiting = set(self.opened)
        for uri in waiting:
            self.close(uri)
        while waiting:
            params = await asyncio.wait_for(self.published.get(), PATIENCE)
            if params.version is None:  # the answer to the closing
                waiting.discard(params.uri)
        self.messages.clear()

    def change(self, text: str, version: int, uri: str = URI) -> None:
        self.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(version, uri),
                [types.TextDocumentContentChangeWholeDocument(text)],
            )
        )

    async def problems(self, version: int | None = None) -> list[types.Diagnostic]:
        """What the server publishes next, or for a version."""
        while True:
            params = await asyncio.wait_for(self.published.get(), PATIENCE)
            if version is None or params.version == version:
                return list(params.diagnostics)

    async def complete(self, line: int, character: int, uri: str = URI) -> list[types.CompletionItem]:
        position = types.Position(line, character)
        params = types.CompletionParams(types.TextDocumentIdentifier(uri), position)
        found = await asyncio.wait_for(self.text_document_completion_async(params), PATIENCE)
        return list(found.items) if isinstance(found, types.CompletionList) else list(found or [])

    async def hover(self, line: int, character: int, uri: str = URI) -> str | None:
        params = types.HoverParams(types.TextDocumentIdentifier(uri), types.Position(line, character))
        found = await asyncio.wait_for(self.text_document_hover_async(params), PATIENCE)
        if found is None:
            return None
        assert isinstance(found.contents, types.MarkupContent)
        return found.contents.value

    async def suggest(
        self, line: int, character: int, by_hand: bool = False, uri: str = URI
    ) -> list[types.InlineCompletionItem]:
        kind = types.InlineCompletionTriggerKind
        params = types.InlineCompletionParams(
            types.InlineCompletionContext(kind.Invoked if by_hand else kind.Automatic),
            types.TextDocumentIdentifier(uri),
            types.Position(line, character),
        )
        found = await asyncio.wait_for(self.text_document_inline_completion_async(params), PATIENCE)
        return list(found.items) if isinstance(found, types.InlineCompletionList) else list(found or [])


@asynccontextmanager
async def editor(
    *arguments: str,
    encodings: list[Any] | None = None,
    inline: bool = False,
    env: dict[str, str] | None = None,
) -> AsyncIterator[Editor]:
    """A session with the server, which ends with its exit code 0."""
    client = Editor()
    environment = {**os.environ, **(env or {})}
    await client.start_io(sys.executable, "-m", "nanochat_tct.cli", "lsp", *arguments, env=environment)
    capabilities = types.ClientCapabilities(
        general=types.GeneralClientCapabilities(position_encodings=encodings),
        text_document=types.TextDocumentClientCapabilities(
            inline_completion=types.InlineCompletionClientCapabilities() if inline else None
        ),
    )
    initialized = await client.initialize_async(types.InitializeParams(capabilities=capabilities))
    client.capabilities = initialized.capabilities
    client.initialized(types.InitializedParams())
    yield client
    await client.shutdown_async(None)
    client.exit(None)
    server = client._server
    assert server is not None
    assert await asyncio.wait_for(server.wait(), PATIENCE) == 0
    await client.stop()


class Session:
    """A client and its server, for several tests one after the other."""

    def __init__(self, runner: asyncio.Runner, client: Editor) -> None:
        self._runner = runner
        self._client = client

    def run(self, test: Callable[[Editor], Coroutine[Any, Any, None]]) -> None:
        self._runner.run(asyncio.wait_for(test(self._client), 2 * PATIENCE))


@contextmanager
def open_session(*arguments: str, **settings: Any) -> Iterator[Session]:
    """A session as ``editor`` opens it, for code that is not asynchronous."""
    context = editor(*arguments, **settings)
    with asyncio.Runner() as runner:
        yield Session(runner, runner.run(context.__aenter__()))
        runner.run(context.__aexit__(None, None, None))
