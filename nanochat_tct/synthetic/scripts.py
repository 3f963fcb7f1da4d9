"""Shell scripts of several lines: blocks of bash, PowerShell, Python and JavaScript, put together up to a length."""

from typing import Any

from nanochat_tct.synthetic.settings import variables
from nanochat_tct.synthetic.steps import run, use
from nanochat_tct.synthetic.template import LEXICON, Generator, compile_script, compile_text, maybe
from nanochat_tct.synthetic.writer import Writer

# Names of variables stay for a while, so that a script uses what it has set (see `blocks`).
LEXICON.facts(
    lower="‹version|tag|name|target|file|dir|count|status|result|branch|url|image|changed|failed|output|prefix|hash›",
    UPPER="‹VERSION|TAG|TARGET|FILES|COUNT|STATUS|RESULT|BRANCH|URL|IMAGE|CHANGED|LATEST|CURRENT|NEXT|BASE|HEAD_SHA|"
    "‹IT›_VERSION|‹IT›_DIR|OUTPUT|NAME|PREFIX|RUN_URL›",
)
LEXICON.phrases(
    said="‹Building|Checking|Found|Skipping|Updating|Using|Publishing|Testing|Deploying|Waiting for|Processing|Done with›",
    sentence="‹‹said› ‹it›|‹said› ‹it› for $‹UPPER›|‹it› is up to date, nothing to do|no ‹object› changed since ${‹UPPER›}|"
    "‹said› ‹object› of ‹it› in ${{ github.repository }}|‹said› ‹object› in ${‹UPPER›}|‹object› for ‹it› are missing|"
    "failed to ‹verb› ‹object›, see the log above|all ‹object› of ‹it› are valid|‹said› ‹in_matrix›|"
    "‹said› ‹it› at ${{ github.sha }}|Expected ‹object› in ‹folder›, got $‹UPPER›|‹said› ‹it›...›",
    argument='‹‹flag›|‹flag›|‹flag› ‹flag›|--‹it›="‹VALUE›"|--‹lower› "$‹UPPER›"|--‹lower› ${{ ‹'
    "inputs.‹input_name›|steps.‹it›.outputs.‹lower›|needs.build.outputs.‹lower›|secrets.‹SECRET›|github.‹sha|ref_name|actor|"
    'run_id|repository›› }}|-‹o|i|f|c› ‹file›|"${‹UPPER›}"|‹folder›/‹it››',
    command="‹‹script_file› ‹argument›|‹script_file› ‹argument› ‹argument›|‹script_file› ‹argument› ‹argument› ‹argument›|"
    'make ‹target›‹| ‹UPPER›="$‹UPPER›"| ‹VARIABLE›=‹VALUE››|./‹binary› ‹it› ‹argument› ‹argument›|'
    "‹folder›/‹binary› ‹verb› ‹object› ‹argument›|git diff --quiet origin/‹main›...HEAD -- ‹folder› ‹folder›|"
    "tar -czf ‹it›-${{ github.ref_name }}-linux-x64.tar.gz -C ‹folder› .|cp -r ‹folder›/‹it› ‹folder›/|"
    "mkdir -p ‹folder› ‹folder›/‹it›|rm -rf ‹folder› ‹folder›/*.‹log|tmp|zip›|mv ‹file› ‹folder›/‹it›-${‹UPPER›}.‹zip|json|txt›|"
    "git fetch ‹--no-tags |--prune --unshallow |›origin ‹main› --depth=‹1..100›|chmod +x ‹script_file›|cat ‹folder›/‹it›.‹log|txt|json›|"
    'ls -la ‹folder› ‹folder›/‹it›|test -f ‹file› ¦¦ { echo "‹sentence›"; exit 1; }|echo "‹sentence›"|sleep ‹2..60›|'
    'export ‹UPPER›="‹VALUE›"|docker pull ‹image›:${{ ‹github.sha|steps.‹it›.outputs.‹lower›|env.‹VARIABLE›› }}|'
    "which ‹binary› && ‹binary› --version|find ‹folder› -type f -name '*.‹json|log|xml|tmp›' -‹print|delete|exec cat {} +›|"
    "curl -fsSL --retry ‹3..9› https://‹it›.‹domain›/‹download|releases|v‹1..4››/${‹UPPER›}/‹file› -o ‹file›|"
    "jq -r '.‹it›[] ¦ select(.‹lower› != null) ¦ .‹lower›' ‹file› > ‹file›|sha256sum ‹folder›/*.‹zip|tar.gz|whl› > ‹folder›/SHA256SUMS|"
    'sed -i "s/^‹lower›=.*/‹lower›=${‹UPPER›}/" ‹file›|unzip -q ‹it›-${‹UPPER›}.zip -d ‹folder›|'
    "gh ‹pr|issue|run› list --repo ${{ github.repository }} --limit ‹5..50› --json ‹number,title|headRefName,state|databaseId›|"
    "wc -l < ‹file›|env ¦ sort ¦ grep -i ‹it›|pip install ‹it›==‹version›‹| --no-deps|›|npm install -g ‹it›@‹version›|"
    "aws s3 cp ‹folder›/‹it›.‹zip|json› s3://‹bucket›/${{ github.ref_name }}/ --‹acl public-read|no-progress|only-show-errors›|"
    "docker compose -f ‹folder›/docker-compose.yml ‹up -d --wait|run --rm ‹it› ‹verb›|logs ‹it›|down -v›|"
    "kubectl -n ‹it› ‹get pods -o wide|rollout restart deployment/‹it›|apply -f ‹folder›/‹it›.yaml›|"
    "rsync -az --delete ‹folder›/ deploy@‹it›.‹domain›:/var/www/‹it›/|"
    'ssh -o StrictHostKeyChecking=no deploy@‹domain› "cd /srv/‹it› && ./‹verb›.sh ${‹UPPER›}"|'
    'git tag -a "v${‹UPPER›}" -m "‹Release|Version› ${‹UPPER›}"|git checkout -b "‹bot|auto|update›/‹it›-${‹UPPER›}"|'
    "python ‹script_folder›/‹verb›_‹lower›.py ‹argument› ‹argument›|python -m ‹package›.‹it› ‹argument› ‹argument›|"
    "node ‹script_folder›/‹verb›-‹object›.‹js|mjs› ‹argument›‹| ‹argument››|bash <(curl -fsSL https://‹it›.‹domain›/install.sh) ‹flag››",
    source="‹$(git describe --tags --abbrev=0)|$(git rev-parse --short HEAD)|$(cat ‹file›)|${GITHUB_REF#refs/tags/}|"
    "${GITHUB_REF_NAME}|$(jq -r '.‹lower›' ‹file›)|${{ github.event.inputs.‹it› }}|${{ steps.‹it›.outputs.‹lower› }}|"
    "$(date -u +%Y%m%d)|$(git log -1 --format=%ct)|$(ls ‹folder› ¦ wc -l)|${{ github.event.pull_request.number }}|"
    "$(./‹binary› --version ¦ cut -d' ' -f2)|${1:-‹it›}|${{ needs.‹it›.outputs.‹lower› }}|‹folder›|‹VALUE›|"
    "$(curl -fsSL https://api.github.com/repos/‹owner›/‹it›/releases/latest ¦ jq -r .tag_name)|"
    "$(gh api repos/‹repository›/‹commits|releases|pulls› --jq '.[0].‹sha|tag_name|number›')|"
    "$(grep -E '^‹lower›' ‹file› ¦ cut -d= -f2)›",
    test='‹-z "$‹UPPER›"|-n "$‹UPPER›"|-f ‹file›|-d ‹folder›|! -f ‹file›|"$‹UPPER›" = "‹it›"|'
    '"$‹UPPER›" != "$‹UPPER›"|$? -ne 0|"${{ github.event_name }}" == "pull_request"|"$‹UPPER›" == "true"|'
    '"${{ inputs.‹it› }}" = "true"|"$GITHUB_REF" = "refs/heads/‹main›"|${#‹UPPER›} -gt ‹1..40›|-s ‹file››',
    many="‹‹component› ‹component› ‹component›|‹folder›/*|‹folder›/*.‹json|yaml|tar.gz|whl›|$(ls ‹folder›)|"
    "$(seq 1 ‹3..30›)|linux/amd64 linux/arm64|$‹UPPER›|${‹UPPER›[@]}|$(git diff --name-only origin/‹main› -- ‹folder›)›",
    remark="‹make sure|check that|we need to|TODO:|NOTE:|workaround:|only› ‹verb› ‹object›‹| for ‹it›| before ‹component›|"
    ", see #‹10..9999›|| → see ‹component›| because ‹component› needs it›",
)

BASH = [
    compile_script(template)
    for template in (
        ["‹command›"],
        ["‹command›"],
        ["‹command›", "‹command›"],
        ["‹UPPER›=‹source›"],
        ['‹UPPER›="‹source›"', 'echo "‹lower›=$‹UPPER›" >> "$GITHUB_OUTPUT"'],
        ['‹UPPER›="‹source›"', "‹UPPER›=‹source›", 'echo "‹sentence›"'],
        ['echo "‹UPPER›=‹source›" >> ‹$GITHUB_ENV|"$GITHUB_ENV"›'],
        ['echo "‹lower›=‹source›" >> ‹$GITHUB_OUTPUT|"$GITHUB_OUTPUT"›', maybe('echo "‹sentence›"')],
        ["# ‹remark›", "‹command›"],
        ["if [ ‹test› ]; then", '  echo "‹sentence›"', maybe("  ‹command›"), maybe("  exit ‹0|1|1›"), "fi"],
        [
            "if [[ ‹test› ]]; then",
            "  ‹command›",
            maybe("  ‹command›"),
            "else",
            "  ‹command›",
            maybe("  ‹UPPER›=‹source›"),
            "fi",
        ],
        [
            "if ! ‹command›; then",
            '  echo "::‹error|warning|notice›::‹sentence›"',
            "  exit 1",
            "fi",
        ],
        [
            "if [[ ‹test› ]]; then",
            '  ‹UPPER›="‹source›"',
            "elif [[ ‹test› ]]; then",
            '  ‹UPPER›="‹source›"',
            "else",
            '  ‹UPPER›="‹it›"',
            "fi",
        ],
        [
            "for ‹lower› in ‹many›; do",
            '  echo "‹sentence›"',
            maybe("  ‹command›"),
            maybe('  ‹script_file› "$‹lower›"'),
            "done",
        ],
        [
            "for i in {1..‹3..30›}; do",
            "  if curl -sf http://localhost:‹3000|8080|9000|5000|‹8000..8999››/‹health|ready|status› > /dev/null; then",
            '    echo "‹it› is up"',
            "    break",
            "  fi",
            "  sleep ‹1..10›",
            "done",
        ],
        [
            "while IFS= read -r ‹lower›; do",
            '  ‹script_file› "$‹lower›"‹| ¦¦ true›',
            maybe("  ‹command›"),
            "done < ‹file›",
        ],
        [
            "‹lower›_‹it›() {",
            "  local ‹lower›=$1",
            "  ‹command›",
            maybe("  ‹command›"),
            '  echo "‹sentence›"',
            "}",
            "",
            '‹lower›_‹it› "‹component›"',
            maybe('‹lower›_‹it› "‹component›"'),
        ],
        [
            "cat <<‹EOF|'EOF'› > ‹file›",
            "‹it›:",
            "  ‹lower›: ‹VALUE›",
            maybe("  ‹lower›: ‹component›"),
            "  ‹lower›: ‹1..900›",
            "EOF",
        ],
        [
            "cat <<EOF >> $GITHUB_STEP_SUMMARY",
            "## ‹it› ‹object›",
            "",
            "¦ ‹lower› ¦ ‹lower› ¦",
            "¦ --- ¦ --- ¦",
            "¦ ‹component› ¦ $‹UPPER› ¦",
            maybe("¦ ‹component› ¦ ${{ job.status }} ¦"),
            "EOF",
        ],
        [
            "{",
            '  echo "### ‹object› of ‹it›"',
            "  echo ''",
            "  echo '```'",
            "  cat ‹file›",
            "  echo '```'",
            '} >> "$GITHUB_STEP_SUMMARY"',
        ],
        [
            "{",
            '  echo "‹lower›<<EOF"',
            "  ‹command›",
            '  echo "EOF"',
            '} >> "$GITHUB_OUTPUT"',
        ],
        [
            'case ‹"$RUNNER_OS"|"‹in_matrix›"|"$‹UPPER›"› in',
            "  ‹Linux|ubuntu*|‹it››)",
            "    ‹command›",
            "    ;;",
            "  *)",
            '    echo "‹sentence›" >&2',
            "    exit 1",
            "    ;;",
            "esac",
        ],
        [
            "git add ‹.|-A|‹folder››",
            'git diff --cached --quiet ¦¦ git commit -m "‹message›"',
            "git push‹| origin ‹main›| origin HEAD:‹main››",
        ],
        [
            'if [ -n "$(git status --porcelain)" ]; then',
            '  echo "::error::‹object› are out of date, run make ‹target›"',
            "  git ‹diff|status --short|diff --stat›",
            "  exit 1",
            "fi",
        ],
        [
            "sudo apt-get update‹| -qq| -y›",
            "sudo apt-get install -y‹| --no-install-recommends› ‹libssl-dev|pkg-config|jq|curl|protobuf-compiler|"
            "cmake|ninja-build|libclang-dev|graphviz|xvfb|libpq-dev|zstd|gettext› ‹build-essential|libffi-dev|git|unzip|ccache|lcov|mold|llvm›",
        ],
        [
            "curl -fsSL ‹-o ‹it›.tar.gz |›https://github.com/‹owner›/‹it›/releases/download/v‹version›/‹it›-linux-‹amd64|x86_64|arm64›.tar.gz \\",
            "  ‹¦ tar -xz -C ‹folder›|--retry ‹3..9›|¦ sudo tar -xz -C /usr/local/bin ‹it››",
        ],
        [
            "‹lower›=$(curl -s -X ‹POST|PUT|GET› \\",
            '  -H "Authorization: Bearer ${{ secrets.‹SECRET› }}" \\',
            '  -H "‹Content-Type: application/json|Accept: application/vnd.github+json›" \\',
            maybe('  -d \'{"‹lower›": "‹VALUE›", "‹it›": ‹true|false|‹1..99››}\' \\'),
            "  https://‹api.github.com/repos/‹repository›/‹dispatches|statuses/$GITHUB_SHA|releases›|api.‹domain›/v‹1..3›/‹it››)",
            maybe('echo "$‹lower›" ¦ jq .'),
        ],
        [
            'docker run --rm -v "$PWD":/‹work|src|app› -w /‹work|src|app› \\',
            "  -e ‹VARIABLE›=‹VALUE› \\",
            "  ‹image›:‹version› \\",
            "  ‹command›",
        ],
        [
            'gh ‹release create|release upload› "$‹TAG|VERSION›" \\',
            "  ‹folder›/*.‹tar.gz|zip|whl› \\",
            '  --‹generate-notes|clobber|title "‹Project› $TAG"› ‹--draft|--repo ‹repository›|--prerelease›',
        ],
        ['gh ‹pr|issue› ‹edit|comment|close› "$‹UPPER›" ‹--add-label "‹label›"|--body "‹sentence›"›'],
        [
            "python3 - <<'EOF'",
            "import json, os, pathlib",
            "",
            "‹lower› = ‹json.load(open('‹file›'))|pathlib.Path('‹folder›')|"
            "os.environ['‹UPPER›']|{'‹it›': '‹version›'}›",
            "print(‹lower›)",
            "EOF",
        ],
        [
            "set ‹+e|-x›",
            "‹command›",
            "‹lower›=$?",
            "set ‹-e|+x›",
            'if [ "$‹lower›" -ne 0 ]; then',
            '  echo "‹sentence›"',
            "  exit $‹lower›",
            "fi",
        ],
        ["‹command› ¦¦ {", '  echo "‹sentence›"', "  exit 1", "}"],
        ["declare -A ‹lower›=(", '  ["‹component›"]="‹VALUE›"', '  ["‹anywhere›"]="‹version›"', ")"],
        ['echo "::group::‹said› ‹it›"', "‹command›", "‹command›", 'echo "::endgroup::"'],
        ["‹script_file› ‹flag› &", "‹lower›_pid=$!", "trap 'kill $‹lower›_pid' EXIT", "wait"],
    )
]
POWERSHELL = [
    compile_script(template)
    for template in (
        ['$‹lower› = "‹source›"', 'Write-Host "‹sentence›"'],
        ["Get-ChildItem ‹folder› -Recurse ¦ Select-Object FullName, Length"],
        ["if (-not (Test-Path ‹folder›)) {", "  New-Item -ItemType Directory -Path ‹folder› ¦ Out-Null", "}"],
        [
            "Invoke-WebRequest -Uri https://‹it›.‹domain›/‹file› -OutFile ‹it›.zip",
            "Expand-Archive ‹it›.zip -DestinationPath ‹folder›",
        ],
        [
            "foreach ($‹lower› in Get-ChildItem ‹folder› -Filter *.‹dll|zip|xml›) {",
            "  ‹script_file› $‹lower›.FullName",
            "}",
        ],
        ["choco install ‹it› --version ‹version› -y --no-progress"],
        [
            '"‹lower›=$‹lower›" ¦ Out-File -FilePath $env:GITHUB_OUTPUT -Append',
            'if ($LASTEXITCODE -ne 0) { throw "‹sentence›" }',
        ],
        ['$env:‹UPPER› = "‹VALUE›"', "& .\\‹folder›\\‹binary›.exe ‹it› ‹flag›"],
    )
]
PYTHON = [
    compile_script(template)
    for template in (
        ["‹lower› = json.loads(Path('‹file›').read_text())"],
        [
            "for ‹lower› in sorted(Path('‹folder›').glob('*.‹json|yaml|whl›')):",
            '    print(f"‹said› {‹lower›}")',
        ],
        [
            "with open(os.environ['GITHUB_OUTPUT'], 'a') as output:",
            '    output.write(f"‹lower›={‹lower›}\\n")',
        ],
        ["if not ‹lower›:", "    raise SystemExit('‹sentence›')"],
        ["‹lower› = os.environ.get('‹VARIABLE›', '‹VALUE›')"],
        ["‹lower› = [name for name in ‹lower› if name.startswith('‹it›')]", "print(json.dumps(‹lower›))"],
        ["def ‹verb›_‹lower›(‹lower›: str) -> dict:", "    return {'‹it›': ‹lower›, '‹lower›': ‹1..99›}", ""],
    )
]
JAVASCRIPT = [
    compile_script(template)
    for template in (
        ["const { owner, repo } = context.repo;"],
        [
            "const ‹lower› = ‹context.payload.pull_request.number|process.env.‹UPPER›|'‹label›'|context.issue.number|${{ steps.‹it›.outputs.‹lower› }}›;"
        ],
        [
            "await github.rest.issues.‹createComment|addLabels|update|removeLabel›({",
            "  owner: context.repo.owner,",
            "  repo: context.repo.repo,",
            "  issue_number: context.issue.number,",
            "  ‹body: '‹sentence›'|labels: ['‹label›']|state: 'closed'|body: `‹said› ${‹lower›}`›,",
            "});",
        ],
        [
            "const { data: ‹lower›s } = await github.rest.‹pulls.list|issues.listForRepo|repos.listReleases|actions.listWorkflowRuns›({",
            "  owner: context.repo.owner,",
            "  repo: context.repo.repo,",
            maybe("  state: 'open',"),
            "  per_page: ‹10..100›,",
            "});",
        ],
        [
            "if (‹!‹lower›|‹lower›.length === 0|context.eventName !== 'push'|‹lower›.includes('‹it›')›) {",
            "  core.‹info|warning|setFailed|notice›('‹sentence›');",
            "  return;",
            "}",
        ],
        [
            "for (const ‹lower› of ‹lower›s) {",
            "  console.log(`‹said› ${‹lower›.‹number|title|name›}`);",
            maybe("  core.setOutput('‹lower›', ‹lower›.id);"),
            "}",
        ],
        ["core.setOutput('‹lower›', ‹lower›);"],
        ["const fs = require('fs');", "const ‹lower› = JSON.parse(fs.readFileSync('‹file›', 'utf8'));"],
        ["return ‹lower›s.map(‹lower› => ‹lower›.name).filter(Boolean);"],
    )
]

_IMPORTS = "import json\nimport os\nfrom pathlib import Path\n\n"
_SET = compile_text(
    "‹set -e|set -euo pipefail|set -euo pipefail|set -ex|set -eux|set -o pipefail|#!/usr/bin/env bash›"
)
_REMARK = compile_text("# ‹remark›")


def blocks(writer: Writer, size: int, library: list[Generator], gaps: float = 0.25) -> str:
    """Return blocks of the library, one after the other, with about `size` characters."""
    parts: list[str] = []
    length = 0
    if library is BASH and size > 150 and writer.chance(0.3):
        parts.append(_SET(writer) + "\n")
    if library is PYTHON:
        parts.append(_IMPORTS)
    while not parts or length < size:
        if writer.chance(0.5):
            writer.forget("lower", "UPPER")
        block = writer.pick(library)(writer)
        if parts and size > 250 and writer.chance(gaps):
            remark = library is BASH and writer.chance(0.3)
            block = "\n" + (_REMARK(writer) + "\n" if remark else "") + block
        parts.append(block if block.endswith("\n") else block + "\n")
        length += len(block) + 1
    script = "".join(parts)
    return script if script.count("\n") > 1 else script[:-1]


_TITLES = compile_text(
    "‹‹Verb› ‹object›|‹Verb› ‹it› ‹object›|‹Verb› ‹object› for ‹it›|‹Verb› ‹it›|‹Check|Set|Get|Determine|Find› ‹it› ‹object›|"
    "‹Set|Export› ‹it› ‹variables|version|environment›|‹Verb› ‹object› and ‹verb› ‹object›|‹Verb› ‹object› from ‹it›|"
    "‹Verb› ‹it› ‹object› (‹adjective› ‹it›)|‹Verb› ‹object› on ‹in_matrix›|Ensure ‹it› ‹object› are up to date|"
    "Wait for ‹it› to be ready|‹Verb› ‹object› if ‹it› changed›"
)
LEXICON.phrases(Verb=lambda writer: str(LEXICON.word(writer, "verb")).replace("-", " ").capitalize())
_IDENTIFIERS = compile_text("‹‹it›|‹it›|‹verb›|‹object›|vars|meta|version|set-‹it›|‹verb›-‹it››")
_JAVASCRIPT_STEP = use(
    "‹Verb› ‹object›", "actions/github-script", {"github-token": maybe("‹token›", 0.4), "script": ""}
)
_ENVIRONMENT = run("", "", env=variables(2.3))


def scripted_step(writer: Writer, size: int) -> dict[str, Any]:
    """Return a step with a script of about `size` characters, in one of four languages."""
    kind = writer.random()
    if kind < 0.07 and size > 120:
        query: dict[str, Any] = _JAVASCRIPT_STEP(writer)
        query["with"]["script"] = blocks(writer, size, JAVASCRIPT, 0.2)
        return query
    writer.forget("it", "IT")
    step: dict[str, Any] = {"name": _TITLES(writer)}
    if writer.chance(0.3):
        step["id"] = _IDENTIFIERS(writer)
    if size > 100 and writer.chance(0.25):
        step["env"] = _ENVIRONMENT(writer)["env"]
    if kind < 0.08:
        return {**step, "shell": "pwsh", "run": blocks(writer, size, POWERSHELL)}
    if kind < 0.086:
        return {**step, "shell": "python", "run": blocks(writer, size, PYTHON)}
    return {**step, "run": blocks(writer, size, BASH)}
