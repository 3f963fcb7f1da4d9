"""JavaScript and TypeScript: Node with npm, pnpm or yarn, Bun and Deno."""

from typing import Any

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import CODECOV, run, use
from nanochat_tct.synthetic.template import LEXICON, maybe
from nanochat_tct.synthetic.writer import Writer

_START = {"npm": "npm run", "pnpm": "pnpm", "yarn": "yarn"}
LEXICON.phrases(npm_run=lambda writer: _START[str(LEXICON.word(writer, "manager"))])
_INSTALLS = {
    "npm": (
        "npm ci",
        "npm ci",
        "npm install",
        "npm ci --ignore-scripts",
        "npm ci --prefer-offline --no-audit",
    ),
    "pnpm": ("pnpm install --frozen-lockfile", "pnpm install", "pnpm i --frozen-lockfile --prefer-offline"),
    "yarn": ("yarn install --frozen-lockfile", "yarn install --immutable", "yarn", "yarn --frozen-lockfile"),
}
LEXICON.phrases(npm_install=lambda writer: writer.pick(_INSTALLS[str(LEXICON.word(writer, "manager"))]))

_INSTALL_PNPM = use(
    "‹Install pnpm|Setup pnpm›",
    "pnpm/action-setup",
    {"version": maybe(("‹8..10›", 8, 9, 10, "latest")), "run_install": maybe(False, 0.4)},
)


def _package_manager(writer: Writer) -> dict[str, Any] | None:
    """The step that installs pnpm, where that is the package manager."""
    return _INSTALL_PNPM(writer) if LEXICON.word(writer, "manager") == "pnpm" else None


_SETUP = [
    _package_manager,
    use(
        "‹Setup Node|Set up Node.js|Use Node.js ‹node›|Setup Node.js|Install Node.js›",
        "actions/setup-node",
        {
            "node-version": ("‹node›", "‹node›", 18, 20, 22),
            "cache": maybe("‹manager›", 0.6),
            "registry-url": maybe("https://registry.npmjs.org‹|/›", 0.12),
            "node-version-file": maybe("‹.nvmrc|package.json|.node-version›", 0.12),
            "check-latest": maybe(True, 0.05),
        },
    ),
    run("‹Install dependencies|Install|Install deps|Install packages|npm ci›", "‹npm_install›"),
]
_LINT = [
    run("‹Lint|ESLint|Run linter|Check lint›", "‹npm_run› lint‹|:ci|:check›"),
    run("‹Typecheck|Type check|Types|TypeScript›", "‹‹npm_run› ‹typecheck|type-check|tsc›|npx tsc --noEmit›"),
    run(
        "‹Check formatting|Prettier|Format check›",
        "‹‹npm_run› ‹format:check|prettier|fmt›|npx prettier --check .|npx biome ci .›",
    ),
    run("‹Check unused|Knip›", "npx ‹knip|depcheck|dpdm›"),
    run(
        "‹Audit|npm audit›", "npm audit --audit-level=‹high|critical|moderate›", continue_on_error=maybe(True)
    ),
    run(
        "Check commit messages",
        "npx commitlint --from ${{ github.event.pull_request.base.sha }} --to ${{ github.event.pull_request.head.sha }} --verbose",
        if_=maybe("github.event_name == 'pull_request'"),
    ),
    run(
        "‹Validate lockfile|Check lockfile›",
        ["npm install --package-lock-only", "git diff --exit-code package-lock.json"],
    ),
    run("Lint ‹styles|CSS|markdown|‹it››", "‹npm_run› lint:‹css|styles|md|‹it››"),
]
_TEST = [
    run(
        "‹Test|Run tests|Unit tests|Run unit tests›",
        (
            "‹npm_run› test",
            "‹npm_run› test‹|:unit|:ci|:coverage›",
            "npm test",
            "npm test -- --coverage‹| --ci| --maxWorkers=‹2..4››",
            "npx vitest run‹| --coverage›",
            "npx jest --ci‹| --coverage| --shard=${{ matrix.shard }}/4›",
        ),
        env=maybe(
            {
                "CI": (True, "true"),
                "NODE_OPTIONS": maybe("--max-old-space-size=‹4096|6144|8192›"),
                "TZ": maybe("‹UTC|Europe/Berlin›"),
            },
            0.25,
        ),
    ),
    run("Build", "‹npm_run› build"),
    run(
        "Test ‹it›",
        (
            "‹npm_run› test:‹it›",
            "npx turbo run test --filter=‹it›",
            "npx nx test ‹it›‹| --skip-nx-cache| --parallel=‹2..4››",
            "pnpm --filter @‹owner›/‹it› test",
            "npm test --workspace=packages/‹it›",
        ),
    ),
    run("‹Test types|Check exports›", "npx ‹tsd|publint|attw --pack .|size-limit›"),
    CODECOV,
]
_BUILD = [
    run(
        "Build",
        (
            "‹npm_run› build",
            "‹npm_run› build‹|:prod|:‹component›|:lib›",
            "npx turbo build‹| --filter=‹it›...›",
            "npx nx run-many -t build‹| --parallel=‹2..5››",
        ),
        env=maybe(
            {
                "NODE_ENV": "production",
                "‹VITE|NEXT_PUBLIC|REACT_APP›_‹API_URL|SENTRY_DSN|VERSION›": "‹VALUE›",
            },
            0.25,
        ),
    ),
    run("Build ‹it›", ("‹npm_run› build:‹it›", "npm run build --workspace=‹it›", "pnpm --filter ‹it› build")),
    run("Check bundle size", "npx ‹bundlesize|size-limit --json|bundlewatch --config .bundlewatch.json›"),
    run("Build Storybook", "‹npm_run› ‹build-storybook|storybook:build› --quiet"),
    run("Generate ‹types|client|GraphQL types›", "‹npm_run› ‹codegen|generate|generate:types|gen:api›"),
]
_RELEASE = [
    run("Build", "‹npm_run› build"),
    use(
        "Create Release Pull Request or Publish‹| to npm›",
        "changesets/action",
        {"publish": "‹npm_run› release", "version": maybe("‹npm_run› version"), "commit": maybe("‹message›")},
        id_=maybe("changesets"),
        env={"GITHUB_TOKEN": "‹token›", "NPM_TOKEN": maybe("${{ secrets.NPM_TOKEN }}", 0.8)},
    ),
    run(
        "‹Publish|Publish to npm|npm publish›",
        (
            "npm publish‹| --access public| --provenance --access public| --tag ‹next|beta|canary››",
            "pnpm publish -r --no-git-checks",
            "npx semantic-release",
            ["npm version ${{ github.event.inputs.version }} --no-git-tag-version", "npm publish"],
        ),
        env={"NODE_AUTH_TOKEN": "${{ secrets.NPM_TOKEN }}", "GITHUB_TOKEN": maybe("‹token›", 0.3)},
    ),
    run("Set version from tag", "npm version ${GITHUB_REF_NAME#v} --no-git-tag-version"),
    run("Pack", ["npm pack --dry-run", "npm pack --pack-destination ‹folder›"]),
]
_DOCS = [
    run("Build ‹site|docs|website›", "‹npm_run› ‹docs:build|build|build:docs|docusaurus build›"),
    run(
        "Check links",
        "npx linkinator ‹./dist|build|‹docs›/.vitepress/dist› --recurse‹| --skip '^(?!http://localhost)'›",
    ),
    run("Export ‹it›", "‹npm_run› docs:‹it›"),
]
_INTEGRATION = [
    run(
        "Install ‹Playwright|Playwright browsers|browsers›",
        "npx playwright install --with-deps‹| chromium| chromium firefox›",
    ),
    run(
        "‹Run e2e tests|Run Playwright tests|E2E|End-to-end tests›",
        (
            "npx playwright test‹| --project=‹chromium|firefox|webkit›| --shard=‹1..4›/4| --grep @‹it››",
            "‹npm_run› ‹test:e2e|e2e|cypress:run›",
            "npx cypress run --‹browser chrome|headless|record›",
        ),
        env=maybe(
            {
                "BASE_URL": "http://localhost:‹3000|4173|5173|8080›",
                "CYPRESS_RECORD_KEY": maybe("${{ secrets.CYPRESS_RECORD_KEY }}", 0.3),
            }
        ),
    ),
    run(
        "‹Start server|Start app|Serve›",
        [
            "‹npm_run› ‹start|preview|serve› &",
            "npx wait-on http://localhost:‹3000|4173|8080›‹| --timeout ‹30..90›000›",
        ],
    ),
    use(
        "Cypress run",
        "cypress-io/github-action",
        {
            "build": maybe("npm run build"),
            "start": "npm ‹start|run preview›",
            "wait-on": maybe("http://localhost:3000"),
            "browser": maybe("‹chrome|firefox|edge›"),
            "record": maybe(True, 0.3),
        },
    ),
    run("Merge reports", "npx playwright merge-reports --reporter ‹html|github› ./all-blob-reports"),
]
_KINDS = {
    "lint": _LINT,
    "test": _TEST,
    "build": _BUILD,
    "release": _RELEASE,
    "docs": _DOCS,
    "integration": _INTEGRATION,
    "benchmark": _BUILD[:3],
}
_PATHS = [
    "src/**",
    "package.json",
    "package-lock.json",
    "**.ts",
    "**.tsx",
    "pnpm-lock.yaml",
    "packages/**",
    "tsconfig*.json",
]

ECOSYSTEMS = [
    (
        13.0,
        Ecosystem(
            "node",
            _SETUP,
            _KINDS,
            [
                Axis("node-version", "node", [16, 18, 20, 22, 24]),
                Axis("node-version", "node", ["18.x", "20.x", "22.x", "24.x"]),
                Axis("node", "node", ["18", "20", "22", "lts/*"]),
                Axis("shard", "coined", [1, 2, 3, 4]),
                Axis("browser", "coined", ["chromium", "firefox", "webkit", "edge"]),
            ],
            _PATHS,
            {
                "NODE_VERSION": maybe(("‹node›", 18, 20, 22)),
                "CI": maybe(True),
                "TURBO_TOKEN": maybe("${{ secrets.TURBO_TOKEN }}", 0.2),
                "NODE_OPTIONS": maybe("--max-old-space-size=‹4096|8192›", 0.3),
            },
            "‹node:‹18|20|22›‹|-alpine|-bookworm-slim›|mcr.microsoft.com/playwright:v1.‹40..54›.‹0..2›-‹jammy|noble››",
        ),
    ),
    (
        1.5,
        Ecosystem(
            "bun",
            [
                use(
                    "Setup Bun",
                    "oven-sh/setup-bun",
                    {"bun-version": maybe(("latest", "1.‹1|2›.‹0..30›", "canary"), 0.7)},
                ),
                run("Install dependencies", "bun install‹| --frozen-lockfile›"),
            ],
            {
                **_KINDS,
                "test": [
                    run("‹Test|Run tests›", "bun test‹| --coverage| ‹tests›| --timeout ‹5..30›000›"),
                    run("Build", "bun run build"),
                    *_TEST[3:],
                ],
                "lint": [
                    run("Lint", "bun run ‹lint|check›"),
                    run("Typecheck", "bun‹x tsc --noEmit| run typecheck›"),
                    *_LINT[3:],
                ],
            },
            [Axis("bun-version", "coined", ["1.1.38", "1.2.2", "latest", "canary"])],
            ["**.ts", "bun.lockb", "package.json"],
            {},
            "oven/bun:‹1|latest|1-slim›",
        ),
    ),
    (
        0.8,
        Ecosystem(
            "deno",
            [
                use(
                    "‹Setup Deno|Install Deno›",
                    "denoland/setup-deno",
                    {"deno-version": ("v1.x", "v2.x", "v2.‹0..4›.‹0..6›", "canary")},
                )
            ],
            {
                "lint": [
                    run("Check formatting", "deno fmt --check"),
                    run("Lint", "deno lint"),
                    run("Type check", "deno check ‹mod.ts|**/*.ts›"),
                ],
                "test": [
                    run(
                        "‹Test|Run tests›",
                        "deno ‹test -A|test --allow-read --allow-net|task test|test --coverage=cov_profile|test --doc›",
                    ),
                    run("Coverage", "deno coverage --lcov cov_profile > cov.lcov"),
                    CODECOV,
                ],
                "build": [
                    run("Build", "deno task build"),
                    run(
                        "Compile", "deno compile ‹-A |›--output ‹dist/‹binary›|‹binary›› ‹main.ts|src/cli.ts›"
                    ),
                ],
                "release": [run("Publish to JSR", "‹npx jsr publish|deno publish‹| --allow-dirty››")],
            },
            [Axis("deno", "coined", ["v1.x", "v2.x", "canary"])],
            ["**.ts", "deno.json", "deno.lock"],
        ),
    ),
]
