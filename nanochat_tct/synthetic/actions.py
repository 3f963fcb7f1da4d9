"""Actions that steps use, the versions they have had, and how authors pin them."""

import hashlib
from collections.abc import Callable
from functools import cache

# Version tags an author may be on, the newest last.
VERSIONS = {
    "actions/attest-build-provenance": "v1.4.4 v2.2.3 v3.0.0",
    "actions/cache": "v3.3.2 v4.0.2 v4.2.0 v4.2.3",
    "actions/cache/restore": "v3.3.2 v4.2.0 v4.2.3",
    "actions/cache/save": "v3.3.2 v4.2.0 v4.2.3",
    "actions/checkout": "v2.7.0 v3.6.0 v4.1.1 v4.1.7 v4.2.2 v4.2.2 v5.0.0 v6.0.1",
    "actions/configure-pages": "v3.0.7 v4.0.0 v5.0.0",
    "actions/create-github-app-token": "v1.11.0 v2.0.6 v2.1.4",
    "actions/dependency-review-action": "v3.1.5 v4.5.0 v4.7.1",
    "actions/deploy-pages": "v2.0.4 v4.0.5",
    "actions/download-artifact": "v3.0.2 v4.1.8 v4.3.0 v5.0.0",
    "actions/first-interaction": "v1.3.0 v3.0.0",
    "actions/github-script": "v6.4.1 v7.0.1 v8.0.0",
    "actions/labeler": "v4.3.0 v5.0.0 v6.0.1",
    "actions/setup-dotnet": "v3.2.0 v4.1.0 v5.0.0",
    "actions/setup-go": "v4.1.0 v5.2.0 v5.5.0 v6.0.0",
    "actions/setup-java": "v3.13.0 v4.5.0 v4.7.1 v5.0.0",
    "actions/setup-node": "v3.8.2 v4.1.0 v4.4.0 v5.0.0",
    "actions/setup-python": "v4.8.0 v5.3.0 v5.6.0 v6.0.0",
    "actions/stale": "v8.0.0 v9.0.0 v9.1.0",
    "actions/upload-artifact": "v3.1.3 v4.4.3 v4.6.2 v5.0.0",
    "actions/upload-pages-artifact": "v2.0.0 v3.0.1",
    "amannn/action-semantic-pull-request": "v5.5.3 v6.1.1",
    "android-actions/setup-android": "v3.2.2",
    "anchore/sbom-action": "v0.17.8 v0.20.0",
    "aquasecurity/trivy-action": "0.28.0 0.31.0",
    "astral-sh/setup-uv": "v3.2.4 v5.4.2 v6.4.3 v7.1.0",
    "aws-actions/amazon-ecr-login": "v1.7.1 v2.0.1",
    "aws-actions/configure-aws-credentials": "v2.2.0 v4.0.2 v4.2.1 v5.0.0",
    "azure/login": "v1.6.1 v2.2.0 v2.3.0",
    "azure/setup-helm": "v3.5 v4.3.0",
    "cachix/install-nix-action": "v27 v30 v31",
    "codecov/codecov-action": "v3.1.6 v4.6.0 v5.4.3",
    "crazy-max/ghaction-import-gpg": "v6.3.0",
    "DavidAnson/markdownlint-cli2-action": "v16.0.0 v19.1.0",
    "denoland/setup-deno": "v1.1.4 v2.0.3",
    "docker/bake-action": "v5.13.0 v6.8.0",
    "docker/build-push-action": "v4.2.1 v5.4.0 v6.15.0 v6.18.0",
    "docker/login-action": "v2.2.0 v3.3.0 v3.4.0",
    "docker/metadata-action": "v4.6.0 v5.6.1 v5.7.0",
    "docker/setup-buildx-action": "v2.10.0 v3.7.1 v3.10.0",
    "docker/setup-qemu-action": "v2.2.0 v3.2.0 v3.6.0",
    "dorny/paths-filter": "v2.11.1 v3.0.2",
    "dorny/test-reporter": "v1.9.1 v2.1.1",
    "dtolnay/rust-toolchain": "stable",
    "EmbarkStudios/cargo-deny-action": "v1.6.3 v2.0.11",
    "erlef/setup-beam": "v1.18.2 v1.20.3",
    "github/codeql-action/analyze": "v2.22.12 v3.27.5 v3.29.2 v4.30.8",
    "github/codeql-action/autobuild": "v2.22.12 v3.27.5 v3.29.2 v4.30.8",
    "github/codeql-action/init": "v2.22.12 v3.27.5 v3.29.2 v4.30.8",
    "github/codeql-action/upload-sarif": "v2.22.12 v3.27.5 v3.29.2 v4.30.8",
    "golangci/golangci-lint-action": "v3.7.1 v6.5.2 v8.0.0",
    "google-github-actions/auth": "v1.3.0 v2.1.7 v2.1.10",
    "google-github-actions/setup-gcloud": "v1.1.1 v2.1.4",
    "goreleaser/goreleaser-action": "v5.1.0 v6.3.0",
    "gradle/actions/setup-gradle": "v3.5.0 v4.4.1 v5.0.0",
    "hadolint/hadolint-action": "v3.1.0",
    "hashicorp/setup-terraform": "v2.0.3 v3.1.2",
    "haskell-actions/setup": "v2.7.11 v2.8.0",
    "helm/chart-testing-action": "v2.6.1 v2.7.0",
    "helm/kind-action": "v1.10.0 v1.12.0",
    "jlumbroso/free-disk-space": "v1.3.1",
    "julia-actions/setup-julia": "v1.9.6 v2.6.0",
    "jwlawson/actions-setup-cmake": "v2.0.2",
    "lukka/get-cmake": "v3.31.5 v4.0.2",
    "maxim-lobanov/setup-xcode": "v1.6.0",
    "microsoft/setup-msbuild": "v1.3.3 v2.0.0",
    "mozilla-actions/sccache-action": "v0.0.6 v0.0.9",
    "nick-fields/retry": "v2.9.0 v3.0.2",
    "ocaml/setup-ocaml": "v2.2.15 v3.4.1",
    "ossf/scorecard-action": "v2.3.3 v2.4.2",
    "oven-sh/setup-bun": "v1.2.2 v2.0.2",
    "peaceiris/actions-gh-pages": "v3.9.3 v4.0.0",
    "peter-evans/create-or-update-comment": "v3.1.0 v4.0.0",
    "peter-evans/create-pull-request": "v5.0.3 v6.1.0 v7.0.8",
    "peter-evans/find-comment": "v2.4.0 v3.1.0",
    "pnpm/action-setup": "v2.4.1 v4.0.0 v4.1.0",
    "pre-commit/action": "v3.0.1",
    "pypa/cibuildwheel": "v2.22.0 v2.23.3 v3.1.4",
    "pypa/gh-action-pypi-publish": "v1.8.14 v1.12.4 release/v1",
    "PyO3/maturin-action": "v1.46.0 v1.49.1",
    "r-lib/actions/check-r-package": "v2.11.3",
    "r-lib/actions/setup-r": "v2.11.3",
    "r-lib/actions/setup-r-dependencies": "v2.11.3",
    "release-drafter/release-drafter": "v5.25.0 v6.1.0",
    "ruby/setup-ruby": "v1.207.0 v1.245.0",
    "seanmiddleditch/gha-setup-ninja": "v5",
    "shivammathur/setup-php": "v2.25.0 v2.32.0 v2.34.1",
    "sigstore/cosign-installer": "v3.7.0 v3.8.2",
    "slackapi/slack-github-action": "v1.27.0 v2.0.0 v2.1.0",
    "softprops/action-gh-release": "v1.0.0 v2.0.8 v2.2.2 v2.3.2",
    "step-security/harden-runner": "v2.10.2 v2.12.0 v2.13.0",
    "subosito/flutter-action": "v2.16.0 v2.21.0",
    "Swatinem/rust-cache": "v2.7.5 v2.7.8 v2.8.0",
    "taiki-e/install-action": "v2.44.60 v2.52.4",
    "toolmantim/release-drafter": "v5.2.0",
    "trufflesecurity/trufflehog": "v3.88.0 main",
    "zizmorcore/zizmor-action": "v0.1.1 v0.2.0",
}
_UNLISTED = "v1.0.0 v1.2.3 v1.4.0 v2.0.1 v2.3.0 v3.1.0 v4.0.2 main"


@cache
def _versions(action: str) -> list[str]:
    return VERSIONS.get(action, _UNLISTED).split()


@cache
def commit_of(action: str, version: str) -> str:
    """Return 40 hexadecimal digits: the same invented commit whenever this version is pinned."""
    return hashlib.sha1(f"{action} {version}".encode()).hexdigest()


class Pins:
    """How one author refers to actions: by commit, by major version, or by full version; one version each."""

    __slots__ = ("_age", "_commit_share", "_full_share", "_known")

    def __init__(self, random: Callable[[], float]) -> None:
        habit = random()
        self._commit_share = 1.0 if habit < 0.46 else 0.3 if habit < 0.54 else 0.0
        self._full_share = 1.0 if habit > 0.95 else 0.08
        self._age = random()  # how far down its list of versions this author is: 0 the oldest, 1 the newest
        self._known: dict[str, str] = {}

    def reference(self, action: str) -> str:
        """Return `action@version` as this author writes it, the same each time."""
        known = self._known.get(action)
        if known is None:
            known = self._known[action] = f"{action}@{self._version(action)}"
        return known

    def _version(self, action: str) -> str:
        versions = _versions(action)
        version = versions[int(self._age * len(versions))]
        # Cheap and settled: the habit of this author for this action comes from the name itself.
        share = (int(commit_of(action, version)[:2], 16) + 1) / 257
        if share <= self._commit_share:
            return commit_of(action, version)
        if share <= self._full_share or not version.startswith("v"):
            return version
        return version.split(".", 1)[0]
