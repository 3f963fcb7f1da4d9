"""Elixir and Erlang, Haskell, OCaml, and Nix."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import run, use
from nanochat_tct.synthetic.template import maybe

_ELIXIR = Ecosystem(
    "elixir",
    [
        use(
            "‹Set up Elixir|Setup BEAM|Setup Elixir and OTP›",
            "erlef/setup-beam",
            {
                "otp-version": "‹otp›",
                "elixir-version": maybe("‹elixir›", 0.9),
                "rebar3-version": maybe("3.‹20..25›", 0.1),
                "version-type": maybe("strict", 0.15),
            },
        ),
        use(
            "‹Restore dependencies cache|Cache deps›",
            "actions/cache",
            {
                "path": ("deps", "deps\n_build\n"),
                "key": "${{ runner.os }}-mix-${{ hashFiles('**/mix.lock') }}",
                "restore-keys": maybe("${{ runner.os }}-mix-"),
            },
        ),
        run(
            "‹Install dependencies|Fetch deps›",
            (
                "mix deps.get",
                ["mix local.rebar --force", "mix local.hex --force", "mix deps.get‹| --only test›"],
            ),
        ),
    ],
    {
        "lint": [
            run("Check formatting", "mix format --check-formatted"),
            run("Credo", "mix credo‹| --strict›"),
            run("Dialyzer", "mix dialyzer‹| --format github| --halt-exit-status›"),
            run("Check unused dependencies", "mix deps.unlock --check-unused"),
            run("Sobelow", "mix sobelow --config"),
        ],
        "test": [
            run("Compile", "mix compile --warnings-as-errors", env=maybe({"MIX_ENV": "test"})),
            run(
                "‹Run tests|Test›",
                "mix test‹| --cover| --warnings-as-errors| --slowest ‹5..20›| --only ‹component››",
                env=maybe(
                    {
                        "MIX_ENV": "test",
                        "DATABASE_URL": maybe("ecto://postgres:postgres@localhost/‹package›_test"),
                    }
                ),
            ),
            run("Setup database", "mix ecto.‹setup|create --quiet && mix ecto.migrate›"),
            run("Common test", "rebar3 ‹ct|eunit|do xref, dialyzer›"),
        ],
        "build": [
            run("Build release", "MIX_ENV=prod mix release‹| --overwrite›"),
            run("Build assets", "mix assets.deploy"),
        ],
        "release": [
            run("Publish to Hex", "mix hex.publish --yes", env={"HEX_API_KEY": "${{ secrets.HEX_API_KEY }}"})
        ],
        "docs": [run("Build docs", "mix docs‹| --warnings-as-errors›")],
    },
    [
        Axis("elixir", "elixir", ["1.14.5", "1.15.8", "1.16.3", "1.17.3", "1.18.3"]),
        Axis("otp", "otp", ["24.3", "25.3", "26.2", "27.2"]),
        Axis("otp", "otp", [25, 26, 27]),
    ],
    ["**.ex", "**.exs", "mix.exs", "mix.lock"],
    {"MIX_ENV": maybe("test", 0.7)},
    "‹elixir:1.‹14..18›‹|-alpine|-otp-26›|erlang:‹25..27››",
)
_HASKELL = Ecosystem(
    "haskell",
    [
        use(
            "‹Set up GHC ‹ghc›|Setup Haskell|Set up Haskell›",
            "haskell-actions/setup",
            {
                "ghc-version": "‹ghc›",
                "cabal-version": maybe("‹latest|3.10.3.0|3.12›", 0.7),
                "enable-stack": maybe(True, 0.2),
                "cabal-update": maybe(True, 0.2),
            },
            id_=maybe("setup"),
        ),
        run(
            "‹Configure the build|Generate plan›",
            [
                "cabal configure --enable-tests --enable-benchmarks‹| --disable-documentation›",
                "cabal build all --dry-run",
            ],
        ),
        run("Install dependencies", "cabal build all --only-dependencies"),
    ],
    {
        "lint": [
            run("HLint", "hlint ‹src|app src test|.›"),
            run("Check formatting", "‹fourmolu --mode check|ormolu --mode check› $(git ls-files '*.hs')"),
            run("Check cabal file", "cabal check"),
        ],
        "test": [
            run("Build", "‹cabal build all|stack build --test --no-run-tests|stack build --fast --pedantic›"),
            run(
                "‹Run tests|Test›",
                "‹cabal test all --test-show-details=direct|stack test‹| --system-ghc| --coverage›|cabal run ‹project›-test›",
            ),
            run("Doctest", "cabal repl --with-ghc=doctest ‹project›"),
        ],
        "build": [
            run("Build sdist", "cabal sdist all"),
            run("Install binary", "cabal install exe:‹binary› --installdir=‹folder› --install-method=copy"),
        ],
        "docs": [run("Haddock", "cabal haddock all‹| --haddock-hyperlink-source›")],
        "release": [
            run(
                "Upload to Hackage",
                "cabal upload ‹--publish |›dist-newstyle/sdist/*.tar.gz‹| --token ${{ secrets.HACKAGE_TOKEN }}›",
            )
        ],
    },
    [
        Axis("ghc", "ghc", ["8.10.7", "9.2.8", "9.4.8", "9.6.6", "9.8.4", "9.10.1"]),
        Axis("ghc-version", "ghc", ["9.4", "9.6", "9.8"]),
        Axis("os", "ubuntu", ["ubuntu-latest", "macos-latest", "windows-latest"]),
    ],
    ["**.hs", "**.cabal", "cabal.project", "stack.yaml"],
    {},
    "haskell:9.‹4..8›‹|-slim›",
)
_OCAML = Ecosystem(
    "ocaml",
    [
        use(
            "Set up OCaml‹| ‹ocaml››",
            "ocaml/setup-ocaml",
            {
                "ocaml-compiler": ("‹ocaml›", "5.‹1..3›.x"),
                "dune-cache": maybe(True),
                "opam-pin": maybe(False, 0.1),
            },
        ),
        run("Install dependencies", "opam install . --deps-only --with-test‹| --with-doc›"),
    ],
    {
        "lint": [
            run("Check formatting", "opam exec -- dune build @fmt"),
            run("Lint opam files", "opam lint"),
        ],
        "test": [
            run("Build", "opam exec -- dune build‹| @all| --profile release›"),
            run("‹Run tests|Test›", "opam exec -- dune ‹runtest|test|build @runtest›"),
        ],
        "build": [run("Build", "opam exec -- dune build @install")],
        "docs": [run("Build docs", "opam exec -- dune build @doc")],
    },
    [
        Axis("ocaml-compiler", "ocaml", ["4.13", "4.14", "5.0", "5.1", "5.2", "5.3"]),
        Axis("os", "ubuntu", ["ubuntu-latest", "macos-latest"]),
    ],
    ["**.ml", "**.mli", "dune-project", "**.opam"],
    {"OPAMYES": maybe((1, True), 0.3)},
    "ocaml/opam:‹debian|alpine›",
)
_NIX = Ecosystem(
    "nix",
    [
        use(
            "Install Nix",
            "‹cachix/install-nix-action|cachix/install-nix-action|DeterminateSystems/nix-installer-action›",
            {
                "extra_nix_config": maybe(
                    "access-tokens = github.com=${{ secrets.GITHUB_TOKEN }}\nexperimental-features = nix-command flakes\n"
                ),
                "nix_path": maybe("nixpkgs=channel:nixos-‹unstable|24.05|24.11|25.05›"),
            },
        ),
        use(
            "‹Setup Cachix|Cachix›",
            "cachix/cachix-action",
            {
                "name": "‹‹owner›|‹project›|nix-community›",
                "authToken": maybe("${{ secrets.CACHIX_AUTH_TOKEN }}", 0.8),
            },
        ),
    ],
    {
        "lint": [
            run("Check formatting", "nix fmt -- --check ."),
            run("Check flake", "nix flake check‹| -L| --all-systems| --no-build›"),
        ],
        "test": [
            run("‹Build|nix build›", "nix build‹| -L| .#‹component›| .#checks.x86_64-linux.‹component››"),
            run("Test in shell", "nix develop ‹-c |--command ›‹make test|‹script_file›|cargo test|pytest›"),
        ],
        "build": [
            run("Build ‹it›", "nix build ‹-L |›.#‹it›"),
            run("Show flake", "nix flake ‹show|metadata›"),
        ],
        "release": [run("Update flake lock", "nix flake update‹| --commit-lock-file›")],
    },
    [
        Axis("os", "ubuntu", ["ubuntu-latest", "macos-latest", "ubuntu-24.04-arm"]),
        Axis("package", "coined", ["default", "docs", "devShell", "tests"]),
    ],
    ["**.nix", "flake.lock"],
    {},
    "nixos/nix:latest",
)

ECOSYSTEMS = [(1.8, _ELIXIR), (1.5, _HASKELL), (0.5, _OCAML), (1.0, _NIX)]
