"""Ruby, PHP, R, Julia and Perl; and plain shell projects."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import CODECOV, run, use
from nanochat_tct.synthetic.template import maybe

_OS = Axis("os", "ubuntu", ["ubuntu-latest", "ubuntu-22.04", "macos-latest", "windows-latest"])
_RUBY = Ecosystem(
    "ruby",
    [
        use(
            "Set up Ruby‹| ‹ruby››",
            "ruby/setup-ruby",
            {
                "ruby-version": maybe(("‹3.1|3.2|3.3|3.4|head|jruby›", "‹ruby›"), 0.85),
                "bundler-cache": maybe(True, 0.85),
                "bundler": maybe("latest", 0.1),
                "cache-version": maybe((0, 1, 2), 0.1),
            },
        ),
        run("‹Install dependencies|Bundle install›", "bundle install‹| --jobs 4 --retry 3›"),
        run(
            "Install ‹system packages|libvips|libpq›",
            "sudo apt-get install -y ‹libpq-dev|libvips42|libsqlite3-dev|imagemagick›",
        ),
    ],
    {
        "lint": [
            run("‹RuboCop|Rubocop|Lint code›", "‹bundle exec |bin/›rubocop‹| --parallel| -f github›"),
            run("‹Brakeman|Security scan›", "‹bundle exec |bin/›brakeman‹| --no-pager| -q -w2›"),
            run("Audit gems", "bundle exec bundle-audit check --update"),
            run("Lint templates", "bundle exec ‹erblint --lint-all|haml-lint app/views|slim-lint app›"),
            run("Check types", "bundle exec ‹srb tc|steep check|rbs validate›"),
        ],
        "test": [
            run(
                "‹Setup|Prepare|Create› database",
                [
                    "cp config/database.‹ci|github›.yml config/database.yml",
                    "‹bundle exec rails|bin/rails› db:‹create db:schema:load|setup|prepare|test:prepare›",
                ],
                env=maybe({"RAILS_ENV": "test"}),
            ),
            run(
                "‹Run tests|Test|RSpec|Specs›",
                "‹bundle exec rspec‹| --format progress| spec/‹component››|bundle exec rake‹| test| spec›|bin/rails test‹|:system›|bundle exec rake test TESTOPTS=-v›",
                env=maybe(
                    {
                        "RAILS_ENV": "test",
                        "DATABASE_URL": "postgres://postgres:postgres@localhost:5432/‹package›_test",
                        "COVERAGE": maybe((True, 1, "1")),
                    },
                    0.4,
                ),
            ),
            run("Precompile assets", "bin/rails assets:precompile"),
            run("Cucumber", "bundle exec cucumber‹| features/‹component›.feature›"),
            CODECOV,
        ],
        "build": [
            run("Build gem", "gem build ‹*|‹project››.gemspec"),
            run("Build site", 'bundle exec jekyll build‹| --baseurl "${{ steps.pages.outputs.base_path }}"›'),
        ],
        "release": [
            run(
                "Publish to RubyGems",
                [
                    "mkdir -p $HOME/.gem",
                    "touch $HOME/.gem/credentials",
                    "chmod 0600 $HOME/.gem/credentials",
                    'printf -- "---\\n:rubygems_api_key: ${GEM_HOST_API_KEY}\\n" > $HOME/.gem/credentials',
                    "gem build *.gemspec",
                    "gem push *.gem",
                ],
                env={"GEM_HOST_API_KEY": "${{ secrets.RUBYGEMS_‹AUTH_TOKEN|API_KEY› }}"},
            ),
            use("Release gem", "rubygems/release-gem"),
        ],
        "docs": [run("Build docs", "bundle exec ‹yard doc|rdoc|jekyll build --trace›")],
    },
    [
        Axis("ruby", "ruby", ["2.7", "3.0", "3.1", "3.2", "3.3", "3.4", "head", "truffleruby"]),
        Axis("ruby-version", "ruby", [2.7, 3.1, 3.2, 3.3, "3.4", "jruby-9.4"]),
        Axis("gemfile", "coined", ["rails_6_1", "rails_7_0", "rails_7_1", "rails_8_0"]),
    ],
    ["**.rb", "Gemfile*", "**/*.gemspec", "spec/**", "app/**"],
    {
        "RAILS_ENV": maybe("test"),
        "BUNDLE_GEMFILE": maybe("gemfiles/${{ matrix.gemfile }}.gemfile", 0.06),
        "BUNDLE_WITHOUT": maybe("development", 0.2),
    },
    "ruby:3.‹1..4›‹|-slim|-alpine›",
)
_PHP = Ecosystem(
    "php",
    [
        use(
            "‹Setup PHP|Install PHP|Set up PHP ‹php››",
            "shivammathur/setup-php",
            {
                "php-version": ("‹php›", "8.‹1..4›", 8.2),
                "extensions": maybe(
                    "‹mbstring, intl, pdo_‹mysql|pgsql|sqlite›|dom, curl, libxml, mbstring, zip|bcmath, gd›"
                ),
                "coverage": maybe("‹none|xdebug|pcov›", 0.7),
                "tools": maybe("composer‹|:v2|, cs2pr|, phpstan›", 0.4),
                "ini-values": maybe("‹memory_limit=-1|error_reporting=E_ALL›", 0.15),
            },
        ),
        run(
            "Get composer cache directory",
            'echo "dir=$(composer config cache-files-dir)" >> $GITHUB_OUTPUT',
            id_="composer-cache",
        ),
        run(
            "‹Install dependencies|Install Composer dependencies|Composer install›",
            "composer ‹install|update› ‹--prefer-dist --no-progress|--no-interaction --prefer-dist|-q --no-ansi --no-interaction --no-scripts|--prefer-‹lowest|stable››",
        ),
    ],
    {
        "lint": [
            run(
                "‹PHPStan|Static analysis›",
                "‹vendor/bin/phpstan analyse‹| --error-format=github| --memory-limit=1G| -l ‹5..9››|composer ‹analyse|phpstan››",
            ),
            run(
                "‹Coding style|PHP CS Fixer|Check style›",
                "vendor/bin/‹php-cs-fixer fix --dry-run --diff|pint --test|phpcs -q --report=checkstyle ¦ cs2pr|ecs check›",
            ),
            run("Validate composer.json", "composer validate‹| --strict›"),
            run("Psalm", "vendor/bin/psalm‹| --output-format=github| --threads=‹2..8››"),
            run("Rector", "vendor/bin/rector --dry-run"),
            run("Check syntax", "find ‹src|app› -name '*.php' -print0 ¦ xargs -0 -n1 -P4 php -l"),
        ],
        "test": [
            run(
                "Prepare Laravel",
                [
                    "cp .env.‹example|ci› .env",
                    "php artisan key:generate",
                    "chmod -R 777 storage bootstrap/cache",
                    maybe("php artisan migrate --seed --force"),
                ],
            ),
            run(
                "‹Run tests|PHPUnit|Execute tests|Test›",
                "‹vendor/bin/phpunit‹| --coverage-clover=coverage.xml| --testdox| --testsuite=‹component››|vendor/bin/pest‹| --ci| --parallel›|php artisan test‹| --parallel›|composer test›",
                env=maybe(
                    {
                        "DB_CONNECTION": "‹mysql|sqlite|pgsql›",
                        "DB_PORT": maybe((3306, 5432, "${{ job.services.mysql.ports['3306'] }}")),
                        "DB_DATABASE": maybe("‹package›_test"),
                    },
                    0.35,
                ),
            ),
            run("Mutation tests", "vendor/bin/infection --min-msi=‹50..95› --threads=‹2..8›"),
            CODECOV,
        ],
        "build": [
            run("Build ‹phar|assets›", "‹box compile|npm ci && npm run build|composer build›"),
            run("Zip ‹plugin|package›", "zip -r ‹project›.zip . -x '*.git*' 'node_modules/*' 'tests/*'"),
        ],
        "release": [run("Deploy with Deployer", "vendor/bin/dep deploy ‹production|staging›‹| -vvv›")],
        "docs": [run("Build API docs", "phpdoc -d ‹src› -t ‹folder›")],
    },
    [
        Axis("php", "php", ["7.4", "8.0", "8.1", "8.2", "8.3", "8.4"]),
        Axis("php-version", "php", [8.1, 8.2, 8.3, 8.4]),
        Axis("laravel", "coined", ["10.*", "11.*", "12.*"]),
        Axis("dependency-version", "coined", ["prefer-lowest", "prefer-stable"]),
        Axis("stability", "coined", ["prefer-lowest", "prefer-stable"]),
    ],
    ["**.php", "composer.json", "composer.lock", "phpunit.xml*"],
    {"COMPOSER_NO_INTERACTION": maybe((1, True), 0.4), "APP_ENV": maybe("‹test|testing›", 0.4)},
    "php:8.‹1..4›‹|-cli|-fpm-alpine›",
)
_R = Ecosystem(
    "r",
    [
        use(
            "Set up R",
            "r-lib/actions/setup-r",
            {
                "r-version": maybe(("‹release|devel|4.‹1..5›.‹0..3››", "${{ matrix.config.r }}")),
                "use-public-rspm": maybe(True),
                "http-user-agent": maybe("release", 0.2),
            },
        ),
        use(
            "Install dependencies",
            "r-lib/actions/setup-r-dependencies",
            {
                "extra-packages": "any::‹rcmdcheck|covr|pkgdown, local::.|lintr, local::.›",
                "needs": maybe("‹check|coverage|website|lint›"),
            },
        ),
        use("Setup pandoc", "r-lib/actions/setup-pandoc"),
    ],
    {
        "lint": [
            run("Lint", "lintr::lint_package()", shell="Rscript {0}"),
            run("Style", 'styler::style_pkg(dry = "fail")', shell="Rscript {0}"),
        ],
        "test": [
            use(
                "Check package",
                "r-lib/actions/check-r-package",
                {
                    "upload-snapshots": maybe(True),
                    "build_args": maybe('c("--no-manual","--compact-vignettes=gs+qpdf")'),
                    "error-on": maybe("'\"error\"'"),
                },
            ),
            run(
                "Test coverage",
                [
                    "covr::codecov(",
                    "  quiet = FALSE,",
                    "  clean = FALSE,",
                    '  install_path = file.path(normalizePath(Sys.getenv("RUNNER_TEMP"), winslash = "/"), "package")',
                    ")",
                ],
                shell="Rscript {0}",
            ),
            run(
                "Show testthat output",
                ["find '${{ runner.temp }}/package' -name 'testthat.Rout*' -exec cat '{}' \\; ¦¦ true"],
                if_="always()",
            ),
        ],
        "docs": [
            run(
                "Build site",
                "pkgdown::build_site_github_pages(new_process = FALSE, install = FALSE)",
                shell="Rscript {0}",
            )
        ],
        "build": [run("Build package", "R CMD build . && R CMD check --as-cran *.tar.gz")],
    },
    [_OS, Axis("r", "coined", ["release", "devel", "oldrel-1", "4.2.3"])],
    ["**.R", "DESCRIPTION", "vignettes/**", "**.Rmd"],
    {
        "GITHUB_PAT": maybe("${{ secrets.GITHUB_TOKEN }}", 0.8),
        "R_KEEP_PKG_SOURCE": maybe(("yes", True)),
        "_R_CHECK_FORCE_SUGGESTS_": maybe(False, 0.3),
    },
    "rocker/‹r-ver|tidyverse|verse›:4.‹2..5›.‹0..3›",
)
_JULIA = Ecosystem(
    "julia",
    [
        use(
            "Setup Julia",
            "julia-actions/setup-julia",
            {"version": ("1", "1.10", "lts", "1.1‹0..2›", "nightly"), "arch": maybe("x64")},
        ),
        use("Cache packages", "julia-actions/cache"),
    ],
    {
        "test": [
            use("Build", "julia-actions/julia-buildpkg"),
            use(
                "Run tests",
                "julia-actions/julia-runtest",
                {"annotate": maybe(True), "coverage": maybe((True, False))},
                env=maybe({"JULIA_NUM_THREADS": (2, 4, "auto")}),
            ),
            use("Process coverage", "julia-actions/julia-processcoverage"),
            CODECOV,
        ],
        "docs": [
            run(
                "Build docs",
                [
                    "julia --project=docs -e '",
                    "  using Pkg",
                    "  Pkg.develop(PackageSpec(path=pwd()))",
                    "  Pkg.instantiate()'",
                    "julia --project=docs docs/make.jl",
                ],
                env={"GITHUB_TOKEN": "‹token›", "DOCUMENTER_KEY": maybe("${{ secrets.DOCUMENTER_KEY }}")},
            )
        ],
        "lint": [
            run(
                "Check format",
                [
                    "julia -e 'using Pkg; Pkg.add(\"JuliaFormatter\")'",
                    "julia -e 'using JuliaFormatter; format(\".\", verbose=true) ¦¦ exit(1)'",
                ],
            )
        ],
    },
    [
        Axis("version", "coined", ["1.6", "1.9", "1.10", "lts", "1", "nightly"]),
        _OS,
        Axis("arch", "coined", ["x64", "x86"]),
    ],
    ["**.jl", "Project.toml"],
    {"JULIA_NUM_THREADS": maybe((2, 4))},
)
_SHELL = Ecosystem(
    "shell",
    [
        run(
            "Install ‹dependencies|tools›",
            ["sudo apt-get update", "sudo apt-get install -y ‹shellcheck|bats|jq|shellcheck shfmt|zsh›"],
        )
    ],
    {
        "lint": [
            run(
                "‹ShellCheck|Lint scripts›",
                (
                    "shellcheck ‹**/*.sh|‹script_folder›/*.sh|-S warning bin/*›",
                    "find . -name '*.sh' -print0 ¦ xargs -0 shellcheck‹| -x›",
                ),
            ),
            run("shfmt", "shfmt -d ‹-i ‹2|4› |›."),
            run("‹Lint YAML|yamllint›", "yamllint ‹.|-s .github›"),
            run(
                "actionlint",
                [
                    "bash <(curl -fsSL https://raw.githubusercontent.com/rhysd/actionlint/main/scripts/download-actionlint.bash)",
                    "./actionlint -color",
                ],
            ),
            use("Lint Markdown", "DavidAnson/markdownlint-cli2-action", {"globs": "**/*.md"}),
            use(
                "‹Super-Linter|Lint code base›",
                "super-linter/super-linter",
                env={
                    "DEFAULT_BRANCH": "‹main›",
                    "GITHUB_TOKEN": "‹token›",
                    "VALIDATE_ALL_CODEBASE": maybe(False),
                },
            ),
            use(
                "Check links",
                "lycheeverse/lychee-action",
                {"args": "--verbose --no-progress ‹'./**/*.md'|README.md|docs›", "fail": maybe(True)},
            ),
            use(
                "Spell check",
                "‹crate-ci/typos|streetsidesoftware/cspell-action|codespell-project/actions-codespell›",
            ),
        ],
        "test": [
            run("Run tests", "‹bats ‹tests›|make test|‹script_file›|./‹tests›/run.sh ‹flag›|prove -lr t›"),
            run(
                "Test ‹install script|installer|‹it››",
                ["./install.sh‹| --prefix ‹folder›| -y›", "‹binary› --version"],
            ),
        ],
        "build": [
            run("Package", ["mkdir -p ‹folder›", "tar -czf ‹project›-$(cat VERSION).tar.gz ‹bin|src|lib›"])
        ],
    },
    [
        _OS,
        Axis("shell", "coined", ["bash", "zsh", "dash", "fish"]),
        Axis(
            "distro", "coined", ["debian:12", "ubuntu:24.04", "alpine:3.20", "fedora:41", "archlinux:latest"]
        ),
    ],
    ["**.sh", "**.md", "**.yml", "Makefile"],
    {"TERM": maybe("xterm-256color", 0.3)},
    "‹debian:bookworm|ubuntu:24.04|alpine:latest›",
)

ECOSYSTEMS = [(2.5, _RUBY), (3.0, _PHP), (1.0, _R), (0.7, _JULIA), (4.0, _SHELL)]
