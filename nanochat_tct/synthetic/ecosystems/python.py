"""Python packages, services and notebooks; with pip, uv, poetry, tox and conda."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import CODECOV, run, use
from nanochat_tct.synthetic.template import maybe

_SETUP_PYTHON = use(
    "Set up Python‹| ‹python›| ${{ matrix.python-version }}›",
    "actions/setup-python",
    {
        "python-version": "‹python›",
        "cache": maybe("‹pip|pip|poetry|pipenv›", 0.35),
        "cache-dependency-path": maybe(
            "‹requirements*.txt|pyproject.toml|**/requirements-dev.txt|setup.py›", 0.15
        ),
        "architecture": maybe("x64", 0.05),
        "allow-prereleases": maybe(True, 0.08),
    },
)
_VERSIONS = Axis("python-version", "python", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14-dev"])
_PATHS = ["**.py", "pyproject.toml", "requirements*.txt", "setup.cfg", "tox.ini", "tests/**", "src/**"]
_TESTS = [
    run(
        "‹Test with pytest|Run tests|Run unit tests|Test|pytest›",
        (
            "pytest",
            "pytest ‹tests›‹| -v| -q| -x| -n auto| --durations=‹5..20››",
            "python -m pytest ‹-v|-ra|-W error› ‹tests›",
            "pytest --cov=‹package› --cov-report=‹xml|term-missing|html› ‹tests›",
            [
                "coverage run -m pytest ‹tests›",
                "coverage xml",
                maybe("coverage report --fail-under=‹60..98›"),
            ],
            "python -m unittest discover ‹-s ‹tests›|-v›",
            "tox -e ‹py|py3‹9..13›|‹component›|tests›",
            "nox -s ‹tests|tests-‹python››",
            'pytest -m ‹"not slow"|‹component›|integration› --junitxml=‹folder›/junit.xml',
        ),
        env=maybe({"PYTHONPATH": "‹src›", "‹VARIABLE›": maybe("‹VALUE›")}, 0.15),
    ),
    run("‹Run doctests|Doctest›", "python -m pytest --doctest-modules ‹package›"),
    run("Test ‹it›", ["pip install -e '.[‹it›]'", "pytest ‹tests›/test_‹it›.py‹| -v| -k ‹component››"]),
    run(
        "Combine coverage",
        [
            "coverage combine ‹folder›",
            "coverage report‹| --show-missing| --skip-covered›",
            maybe("coverage xml"),
        ],
    ),
    run("Smoke test", 'python -c "import ‹package›; print(‹package›.__version__)"'),
    CODECOV,
]
_LINT = [
    run(
        "‹Lint with ruff|Ruff|Lint|Run ruff›",
        ("ruff check ‹.|‹src›|--output-format=github .›", ["ruff check .", "ruff format --check ."]),
    ),
    run(
        "‹Lint with flake8|flake8›",
        [
            maybe("# stop the build if there are Python syntax errors or undefined names"),
            "flake8 ‹.|‹package›|‹src›› --count --select=E9,F63,F7,F82 --show-source --statistics",
            maybe(
                "flake8 . --count --exit-zero --max-complexity=‹8..15› --max-line-length=‹79|88|100|120|127› --statistics"
            ),
        ],
    ),
    run("‹Check formatting|black|Format›", "black --check ‹--diff |›‹.|‹src›|‹package› ‹tests››"),
    run(
        "‹Type check|mypy|Run mypy|Types›",
        "‹mypy|mypy --strict|pyright|python -m mypy| ty check› ‹‹package›|‹src›|.›",
    ),
    run("isort", "isort --check-only ‹--profile black |›."),
    run("‹pylint|Pylint›", "pylint ‹package› --fail-under=‹7..9›.‹0..9›"),
    run("‹Security check|bandit›", "bandit -r ‹‹package›|‹src››‹| -ll| -c pyproject.toml›"),
    run("Check dependencies", "‹pip check|deptry .|pip-audit -r requirements.txt|safety check›"),
    use("pre-commit", "pre-commit/action", {"extra_args": maybe("--all-files")}),
]
_BUILD = [
    run(
        "‹Build package|Build|Build wheel and sdist|Build distribution›",
        (
            "python -m build",
            "uv build",
            "poetry build",
            "hatch build",
            "python -m build ‹--wheel|--sdist› --outdir ‹dist|wheelhouse›",
            ["python -m pip install build", "python -m build"],
        ),
    ),
    use(
        "‹Build wheels|cibuildwheel›",
        "pypa/cibuildwheel",
        {"output-dir": maybe("wheelhouse"), "package-dir": maybe("‹folder›", 0.2)},
        env=maybe(
            {
                "CIBW_BUILD": "cp3‹9|10|11|12|13›-*",
                "CIBW_SKIP": maybe("*-musllinux_* pp*"),
                "CIBW_ARCHS": maybe("‹auto|x86_64 arm64|auto aarch64›"),
            }
        ),
    ),
    run("‹Check metadata|Check package|Twine check›", "twine check ‹--strict |›dist/*"),
    run("Inspect contents", ["tar tf dist/*.tar.gz", "unzip -l dist/*.whl"]),
    run(
        "Install from wheel",
        ["pip install dist/*.whl", 'python -c "import ‹package›"', maybe("‹project› --version")],
    ),
]
_RELEASE = [
    *_BUILD,
    use(
        "Publish ‹package |distribution |›to ‹PyPI|PyPI|TestPyPI›",
        "pypa/gh-action-pypi-publish",
        {
            "password": maybe("${{ secrets.PYPI_‹API_TOKEN|TOKEN› }}"),
            "repository-url": maybe("https://test.pypi.org/legacy/", 0.2),
            "skip-existing": maybe(True, 0.3),
            "packages-dir": maybe("‹dist/|wheelhouse/›", 0.2),
            "attestations": maybe(True, 0.1),
        },
        if_=maybe("‹test_of›", 0.3),
    ),
    run(
        "Publish",
        "‹twine upload dist/*|uv publish|poetry publish --build›",
        env={
            "TWINE_USERNAME": maybe("__token__"),
            "‹TWINE_PASSWORD|UV_PUBLISH_TOKEN|POETRY_PYPI_TOKEN_PYPI›": "${{ secrets.PYPI_TOKEN }}",
        },
    ),
]
_DOCS = [
    run(
        "Install docs dependencies",
        "‹pip install -r ‹docs›/requirements.txt|uv sync --group docs|pip install -e .[docs]|pip install mkdocs-material›",
    ),
    run(
        "Build ‹docs|documentation›",
        (
            "sphinx-build -‹W |›b html ‹docs› ‹docs›/_build/html",
            "mkdocs build‹| --strict›",
            ["cd ‹docs›", "make html‹| SPHINXOPTS=-W›"],
        ),
    ),
    run("Check links", "sphinx-build -b linkcheck ‹docs› ‹docs›/_build/linkcheck"),
    run("Deploy ‹docs|documentation›", "mkdocs gh-deploy --force", if_=maybe("‹check›")),
]
_INTEGRATION = [
    run(
        "‹Run migrations|Migrate database›",
        "‹alembic upgrade head|python manage.py migrate|flask db upgrade›",
        env={"DATABASE_URL": "postgresql://postgres:postgres@localhost:5432/‹package›"},
    ),
    run("Start ‹it›", ["python -m ‹package›.‹it› ‹flag› &", "sleep ‹3..15›"]),
    run(
        "Run integration tests",
        (
            "pytest ‹tests›/integration‹| -v| --maxfail=‹1..5››",
            "pytest -m integration ‹flag›",
            "python manage.py test ‹it›",
        ),
        env=maybe({"‹VARIABLE›": "‹VALUE›", "REDIS_URL": maybe("redis://localhost:6379/0")}),
    ),
    *_TESTS[:3],
]
_BENCHMARK = [
    run(
        "Run benchmarks",
        (
            "pytest ‹benchmarks|tests/bench› --benchmark-json=‹file›",
            "asv run ‹--quick|HEAD^!|main..HEAD›",
            "python benchmarks/‹it›.py ‹flag›",
        ),
    ),
    run(
        "Compare with ‹main›",
        [
            "git checkout ‹main›",
            "python benchmarks/run.py --output base.json",
            "python benchmarks/compare.py base.json ‹file› --threshold 1.‹1..9›",
        ],
    ),
    run(
        "Evaluate notebook",
        "jupyter nbconvert --to notebook --execute ‹docs›/‹it›.ipynb‹| --ExecutePreprocessor.timeout=‹3..9›00›",
    ),
]
_KINDS = {
    "lint": _LINT,
    "test": _TESTS,
    "build": _BUILD,
    "release": _RELEASE,
    "docs": _DOCS,
    "integration": _INTEGRATION,
    "benchmark": _BENCHMARK,
}

ECOSYSTEMS = [
    (
        12.0,
        Ecosystem(
            "python",
            [
                _SETUP_PYTHON,
                run(
                    "Upgrade pip", "python -m pip install --upgrade pip‹| setuptools wheel|==2‹3..5›.‹0..3››"
                ),
                run(
                    "Install dependencies",
                    (
                        "pip install -r requirements.txt",
                        "pip install -e .‹[dev]|[test]|[‹component›]|›",
                        "pip install ‹.|-e '.[dev,test]'|tox|nox|-r requirements-dev.txt›",
                        [
                            "python -m pip install --upgrade pip",
                            "pip install -r requirements.txt",
                            maybe("pip install ‹pytest pytest-cov|flake8 pytest|-e .|ruff mypy›"),
                        ],
                        ["python -m pip install --upgrade pip", "pip install tox‹| tox-gh-actions›"],
                        [
                            "python -m pip install --upgrade pip",
                            "if [ -f requirements.txt ]; then pip install -r requirements.txt; fi",
                        ],
                    ),
                ),
            ],
            _KINDS,
            [
                _VERSIONS,
                Axis("python-version", "python", [3.9, "3.10", 3.11, 3.12, 3.13]),
                Axis("dependencies", "coined", ["minimal", "latest", "pre"]),
            ],
            _PATHS,
            {
                "PYTHONUNBUFFERED": maybe((1, "1")),
                "FORCE_COLOR": maybe((1, "1", "3")),
                "PIP_DISABLE_PIP_VERSION_CHECK": maybe("1"),
                "PYTHON_VERSION": maybe("‹python›"),
            },
            "python:‹3.10|3.11|3.12|3.13›‹|-slim|-bookworm›",
        ),
    ),
    (
        6.0,
        Ecosystem(
            "uv",
            [
                use(
                    "‹Install uv|Set up uv|Setup uv|Install the latest version of uv›",
                    "astral-sh/setup-uv",
                    {
                        "version": maybe("‹latest|0.‹4..9›.‹0..29››", 0.4),
                        "enable-cache": maybe(True),
                        "python-version": maybe("‹python›"),
                        "cache-dependency-glob": maybe("‹uv.lock|**/pyproject.toml›", 0.3),
                    },
                ),
                run("‹Set up Python|Install Python›", "uv python install‹| ‹python››"),
                run(
                    "‹Install dependencies|Install the project|Sync›",
                    "uv sync‹| --all-extras| --locked| --frozen| --dev| --all-extras --dev| --group ‹component››",
                ),
            ],
            {
                **_KINDS,
                "test": [
                    run(
                        "Run tests",
                        (
                            "uv run pytest",
                            "uv run pytest ‹tests›‹| -v| -n auto›",
                            "uv run --python ‹python› pytest‹| --cov| -x›",
                            "uv run coverage run -m pytest",
                        ),
                    ),
                    *_TESTS[1:],
                ],
                "lint": [
                    run("‹Ruff|Lint›", ("uv run ruff check‹| .›", "uvx ruff check")),
                    run("Format", "uv‹x| run› ruff format --check"),
                    run("‹Type check|mypy›", "uv run ‹mypy ‹src›|pyright|ty check›"),
                    *_LINT[4:],
                ],
            },
            [_VERSIONS, Axis("resolution", "coined", ["highest", "lowest-direct"])],
            ["**/*.py", "uv.lock", "pyproject.toml", "tests/**", ".github/workflows/*.yml"],
            {
                "UV_VERSION": maybe("0.‹4..9›.‹0..29›"),
                "UV_SYSTEM_PYTHON": maybe((1, True)),
                "UV_FROZEN": maybe(True),
            },
            "ghcr.io/astral-sh/uv:python‹3.11|3.12|3.13›-bookworm",
        ),
    ),
    (
        2.5,
        Ecosystem(
            "poetry",
            [
                _SETUP_PYTHON,
                run(
                    "Install ‹Poetry|poetry›",
                    (
                        "pipx install poetry‹|==1.8.‹2..5›|==2.‹0..2›.‹0..3››",
                        "curl -sSL https://install.python-poetry.org ¦ python3 -",
                    ),
                ),
                run(
                    "Install dependencies",
                    (
                        "poetry install‹| --no-interaction --no-root| --with ‹dev|test|docs›| --all-extras›",
                        ["poetry config virtualenvs.in-project true", "poetry install"],
                    ),
                ),
            ],
            {
                **_KINDS,
                "test": [
                    run(
                        "‹Test|Run tests›",
                        "poetry run ‹pytest|pytest -v|pytest --cov=‹package›|tox -e py|python -m pytest ‹tests››",
                    ),
                    *_TESTS[1:],
                ],
            },
            [_VERSIONS, Axis("poetry-version", "coined", ["1.8.5", "2.0.1", "2.1.3"])],
            ["**.py", "poetry.lock", "pyproject.toml"],
            {"POETRY_VERSION": maybe("‹1.8.5|2.1.3›"), "POETRY_VIRTUALENVS_IN_PROJECT": maybe(True)},
            "python:‹3.11|3.12›-slim",
        ),
    ),
    (
        1.5,
        Ecosystem(
            "conda",
            [
                use(
                    "‹Setup Miniconda|Set up conda›",
                    "conda-incubator/setup-miniconda",
                    {
                        "python-version": "‹python›",
                        "environment-file": maybe("‹environment.yml|ci/environment-‹python›.yaml›"),
                        "activate-environment": maybe("‹test|‹package››"),
                        "auto-activate-base": maybe(False),
                        "channels": maybe("conda-forge"),
                        "use-mamba": maybe(True, 0.3),
                        "miniforge-version": maybe("latest"),
                    },
                ),
                run("Conda info", ["conda info", "conda list"], shell="bash -l {0}"),
                run("Install ‹package|project›", "pip install --no-deps -e .", shell="bash -‹l|el› {0}"),
            ],
            _KINDS,
            [_VERSIONS],
            ["**.py", "environment.yml", "conda.recipe/**", "**.ipynb"],
            {"MPLBACKEND": maybe("Agg"), "OMP_NUM_THREADS": maybe((1, 2, "4"))},
            "condaforge/miniforge3:latest",
        ),
    ),
]
