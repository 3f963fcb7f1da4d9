"""The language server: diagnostics, completion and hover from the rules, and suggestions from a checkpoint."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import redirect_stdout
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from nanochat_tct.check import WORKFLOWS
from nanochat_tct.editor.completion import Completions, complete
from nanochat_tct.editor.config import LspConfig
from nanochat_tct.editor.diagnostics import SOURCE, diagnostics
from nanochat_tct.editor.hover import hover
from nanochat_tct.editor.language import Language
from nanochat_tct.editor.text import EditorText
from nanochat_tct.editor.worker import Worker
from nanochat_tct.errors import UserError
from nanochat_tct.tokenizer.engine import library
from nanochat_tct.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:  # which imports torch
    from nanochat_tct.generation import Completer, Completion

LANGUAGE_ID = "github-actions-workflow"  # of GitHub's extension for VS Code
# Seconds after which a document's time is up; what is usual takes some milliseconds.
LOADING, CHECKING, ANSWERING, SUGGESTING = 600, 5, 2, 10
MAX_SUGGESTIONS = 3
MAX_LINES = 5  # of a suggestion that somebody asks for; those that come by themselves have one
KINDS = {
    "key": types.CompletionItemKind.Property,
    "value": types.CompletionItemKind.EnumMember,
    "context": types.CompletionItemKind.Variable,
    "function": types.CompletionItemKind.Function,
    "name": types.CompletionItemKind.Field,
}
TRIGGERS = [" ", ".", "-", "{", "["]


class WorkflowServer(LanguageServer):
    """The state of one session: its two threads and what they have loaded.

    Documents come whole with every change: a workflow has some kilobytes, and an editor and Python disagree about
    where lines end.
    """

    def __init__(self, config: LspConfig) -> None:
        super().__init__(
            "nanochat-tct", version("nanochat-tct"), text_document_sync_kind=types.TextDocumentSyncKind.Full
        )
        self.config = config
        self.rules = Worker("rules")
        self.model = Worker("model", drops_begun=False)  # it keeps what it has read for the next call
        self.checks: dict[str, asyncio.Task[None]] = {}
        self.loading: list[asyncio.Task[object]] = []  # the rules, and the checkpoint if there is one
        self.suggesting: asyncio.Task[list[Completion]] | None = None

    @cached_property
    def language(self) -> Language:
        """Return the rules, with their own engine because another thread uses the checkpoint's."""
        return Language(Tokenizer())

    @cached_property
    def completer(self) -> Completer:
        from nanochat_tct.generation import Completer

        assert self.config.checkpoint is not None
        completer = Completer(self.config.checkpoint)
        completer.complete("")  # makes what is made at the first call, or says that it cannot be made
        return completer

    def load(self) -> None:
        """Begin to load the rules and the checkpoint, each in its own thread."""
        self.loading = [asyncio.ensure_future(self.rules.call(LOADING, lambda: self.language))]
        if self.config.checkpoint is not None:
            self.loading.append(asyncio.ensure_future(self._load_checkpoint()))

    async def _load_checkpoint(self) -> None:
        """Load without the time limit of a suggestion, because an interrupted import cannot be repeated."""
        try:
            await self.model.call(LOADING, lambda: self.completer)
        except UserError as error:
            self.say(f"{error}; there are no suggestions of the checkpoint", types.MessageType.Error)

    def say(self, message: str, kind: types.MessageType) -> None:
        self.window_show_message(types.ShowMessageParams(kind, message))

    def document(self, uri: str) -> EditorText | None:
        """Return an open document; None if it is not open here, or not a workflow."""
        found = self.workspace.text_documents.get(uri)
        if found is None or not (found.language_id == LANGUAGE_ID or f"{WORKFLOWS}/" in unquote(uri)):
            return None
        return EditorText(found.source, self.workspace.position_codec)

    def check_soon(self, uri: str) -> None:
        """Check the current version of a document, and drop a check of an earlier version that still runs."""
        if earlier := self.checks.pop(uri, None):
            earlier.cancel()
        if (document := self.document(uri)) is not None:
            task = asyncio.ensure_future(self.check(uri, document))
            self.checks[uri] = task
            task.add_done_callback(lambda done: self.checks.get(uri) is done and self.checks.pop(uri))

    async def check(self, uri: str, document: EditorText) -> None:
        number = self.workspace.text_documents[uri].version
        try:
            found = await self.rules.call(CHECKING, lambda: diagnostics(self.language.tokenizer, document))
        except TimeoutError:
            what = f"checking was stopped after {CHECKING} seconds; nanochat-tct check has no such limit"
            severity = types.DiagnosticSeverity.Information
            found = [types.Diagnostic(document.range(0, 0, 1), what, severity=severity, source=SOURCE)]
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, number))

    async def complete(self, document: EditorText, offset: int) -> types.CompletionList:
        """Return completion items, with suggestions of the checkpoint if the editor has no other way to show them."""
        try:
            found = await self.rules.call(ANSWERING, lambda: complete(self.language, document.text, offset))
        except TimeoutError:
            found = Completions(offset, [])
        word_range = types.Range(document.position_at(found.start), document.position_at(offset))
        items = [
            types.CompletionItem(
                each.label,
                kind=KINDS[each.kind],
                documentation=each.description,
                sort_text=f"{number:04}",
                filter_text=each.text,
                text_edit=types.TextEdit(word_range, each.text),
            )
            for number, each in enumerate(found.suggestions)
        ]
        has_suggestions = len(self.loading) == 2 and self.loading[1].done() and not self.shows_inline
        if not has_suggestions or document.rest_of_line(offset).strip():
            return types.CompletionList(is_incomplete=False, items=items)
        word = document.text[found.start : offset]
        for number, suggestion in enumerate(await self.suggest(document, offset)):
            items.append(
                types.CompletionItem(
                    word + suggestion.text,
                    kind=types.CompletionItemKind.Text,
                    detail=f"{suggestion.probability:.0%}",
                    sort_text=f" {number}",
                    filter_text=word + suggestion.text,
                    text_edit=types.TextEdit(word_range, word + suggestion.text),
                    insert_text_mode=types.InsertTextMode.AsIs,
                )
            )
        return types.CompletionList(is_incomplete=True, items=items)

    @property
    def shows_inline(self) -> bool:
        """Return whether the editor shows inline suggestions (grey text)."""
        of_documents = self.client_capabilities.text_document
        return of_documents is not None and of_documents.inline_completion is not None

    async def suggest(self, document: EditorText, offset: int, max_lines: int = 1) -> list[Completion]:
        """Return completions of the checkpoint, the most probable one first, and drop an earlier request."""
        if len(self.loading) < 2:
            return []
        await asyncio.shield(self.loading[1])
        if "completer" not in self.__dict__:  # it cannot be loaded, which has been said
            return []
        if self.suggesting is not None:
            self.suggesting.cancel()
        call = self.model.call(SUGGESTING, self._suggest, document.text, offset, max_lines)
        task = self.suggesting = asyncio.ensure_future(call)
        try:
            found = await task
        except TimeoutError:  # what it keeps is half-written: it begins again
            self.__dict__.pop("completer", None)
            self.loading[1] = asyncio.ensure_future(self._load_checkpoint())
            return []
        except asyncio.CancelledError:
            task.cancel()
            raise
        return [each for each in found if each.text]

    def _suggest(self, text: str, offset: int, max_lines: int) -> list[Completion]:
        """Return the most probable lines; the first is extended by lines while it stays probable enough."""
        from nanochat_tct.generation import Completion

        least = self.config.threshold
        found = self.completer.complete(text, offset, MAX_SUGGESTIONS, least=least)
        for _ in range(max_lines - 1):
            if not found:
                break
            more = self.completer.complete(
                text[:offset] + found[0].text, n=1, least=least / found[0].probability
            )
            if not more:
                break
            found[0] = Completion(found[0].text + more[0].text, found[0].probability * more[0].probability)
        return found


def serve(config: LspConfig) -> None:
    """Serve one editor over standard input and output.

    Raises:
        UserError: the tokenizer is not built, or there is no such checkpoint.
    """
    library()
    if config.checkpoint is not None:
        from nanochat_tct.model.checkpoint import find_checkpoint

        find_checkpoint(config.checkpoint)
    server = WorkflowServer(config)
    _register(server)
    try:
        with (
            os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output,  # which pygls closes
            redirect_stdout(sys.stderr),  # what a library prints must not get between the messages
        ):
            server.start_io(stdout=output)
    finally:
        server.rules.close()
        server.model.close()


def _register(server: WorkflowServer) -> None:
    """Register what the server does at each message of the protocol."""

    @server.feature(types.INITIALIZED)
    def initialized(params: types.InitializedParams) -> None:
        server.load()

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        server.check_soon(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        server.check_soon(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        server.check_soon(uri)  # which only drops what is under way
        server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    async def hovered(params: types.HoverParams) -> types.Hover | None:
        document = server.document(params.text_document.uri)
        if document is None:
            return None
        offset = document.offset(params.position)
        try:
            found = await server.rules.call(ANSWERING, lambda: hover(server.language, document.text, offset))
        except TimeoutError:
            return None
        return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, found)) if found else None

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=TRIGGERS))
    async def completed(params: types.CompletionParams) -> types.CompletionList | None:
        document = server.document(params.text_document.uri)
        return await server.complete(document, document.offset(params.position)) if document else None

    if server.config.checkpoint is None:
        return

    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    async def suggested(params: types.InlineCompletionParams) -> types.InlineCompletionList | None:
        document = server.document(params.text_document.uri)
        if document is None:
            return None
        is_asked_for = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        max_lines = MAX_LINES if is_asked_for else 1
        found = await server.suggest(document, document.offset(params.position), max_lines)
        here = types.Range(params.position, params.position)
        return types.InlineCompletionList(
            [types.InlineCompletionItem(each.text, range=here) for each in found]
        )
