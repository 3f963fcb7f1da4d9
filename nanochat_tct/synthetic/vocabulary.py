"""Words that many steps share: versions, tasks, folders, flags, conditions, crons, messages."""

from nanochat_tct.synthetic.template import LEXICON

LEXICON.facts(
    # Versions of languages and tools: one choice a workflow.
    python="‹3.9|3.10|3.10|3.11|3.11|3.12|3.12|3.12|3.13|3.13|3.14|3.x›",
    node="‹16|18|18|20|20|20|22|22|22|24|lts/*|20.x|22.x|18.x›",
    go="‹1.20|1.21|1.22|1.22.5|1.23|1.23.x|1.24|1.24.2|1.25|stable›",
    java="‹8|11|17|17|17|21|21|21|25›",
    jdk="‹temurin|temurin|temurin|temurin|zulu|corretto|adopt|microsoft|liberica›",
    rust="‹stable|stable|stable|stable|nightly|1.74.0|1.78|1.81.0|1.85|beta›",
    dotnet="‹6.0.x|7.0.x|8.0.x|8.0.x|9.0.x|10.0.x|8.0.‹1..4›‹0..9›‹0..9››",
    ruby="‹3.0|3.1|3.2|3.3|3.3|3.4|'3.3'|jruby›",
    php="‹8.0|8.1|8.2|8.2|8.3|8.3|8.4›",
    elixir="‹1.14|1.15|1.16|1.17|1.18.3›",
    otp="‹25|26|27|27.2›",
    ghc="‹9.2.8|9.4.8|9.6.6|9.8.4|9.10.1›",
    ocaml="‹4.14|5.1|5.2|5.3›",
    terraform="‹1.5.7|1.6.6|1.7.5|1.8.5|1.9.8|1.11.4|~1.9›",
    kubernetes="v1.‹27..33›.‹0..9›",
    helm="v3.‹12..18›.‹0..6›",
    postgres="‹13|14|15|16|16|17|16-alpine|15-alpine›",
    redis="‹6|7|7|7-alpine|7.2|alpine›",
    cmake="‹Release|Release|Debug|RelWithDebInfo›",
    manager="‹npm|npm|npm|pnpm|pnpm|yarn|yarn›",
    ubuntu=(
        *["ubuntu-latest"] * 26,
        *["ubuntu-24.04"] * 3,
        *["ubuntu-22.04"] * 3,
        "ubuntu-20.04",
        "ubuntu-slim",
        "‹flat›-‹ubuntu|linux›-‹4|8|16›core",
        "‹blacksmith-‹2|4|8›vcpu-ubuntu-2404|depot-ubuntu-24.04-‹4|8››",
    ),
    # What tells a job of a matrix from the others; set for a job that has one.
    in_matrix="‹${{ runner.os }}|${{ runner.arch }}|${{ github.ref_name }}|${{ github.run_number }}›",
    src="‹src|src|src|lib|‹package›|.|source›",
    tests="‹tests|tests|tests|test|tests/unit|‹package›/tests›",
    docs="‹docs|docs|docs|doc|website|site›",
    script_folder="‹scripts|scripts|scripts|.github/scripts|ci|hack|tools|bin|build|.ci›",
)

LEXICON.phrases(
    version="‹0..5›.‹0..24›.‹0..12›",
    cron="‹0..59› ‹0..23› ‹* * ‹0..6›|* * 1|* * *|* * *|* * *|* * 1-5|* * MON|1 * *|‹1..28› * *|* * ‹0,3|2,5|1,4››",
    cron_often="‹*/‹5|10|15|20|30› * * * *|0 */‹2|3|4|6|8|12› * * *|‹1..59› */‹2|3|6|12› * * *›",
    target="‹all|build|check|test|lint|docs|dist|vendor|generate|verify|proto|images|release|bootstrap|fmt-check|"
    "test-unit|test-integration|build-‹component›|test-‹component›|lint-‹component›|‹component››",
    verb="‹build|check|collect|compute|copy|create|fetch|generate|import|install|list|migrate|package|patch|prepare|"
    "publish|push|render|resolve|run|scan|seed|select|start|stop|sync|update|upload|validate|verify|wait-for›",
    object="‹artifacts|assets|baseline|binaries|bindings|bundle|cache|certificates|changelog|changes|checksums|"
    "config|coverage|credentials|data|database|dependencies|environment|fixtures|images|index|labels|licenses|"
    "logs|manifests|matrix|metadata|migrations|mirrors|modules|packages|protos|release-notes|reports|results|"
    "schema|secrets|snapshots|stubs|submodules|summary|tags|templates|tokens|toolchain|translations|versions›",
    script_file="./‹script_folder›/‹verb›-‹object›.‹sh|sh|sh|py›",
    folder="‹build|dist|out|target|artifacts|reports|coverage|.cache|tmp|output|‹component›|‹src›|‹tests›|"
    "packages/‹component›|services/‹component›|‹docs››",
    file="‹VERSION|CHANGELOG.md|config.‹yaml|json|toml›|‹component›.‹log|json|yaml|txt|xml|lock›|results.json|"
    "report.‹html|xml|json|md›|‹build|dist|out›/‹component›.‹zip|tar.gz|tgz|json|bin›|summary.md|.env|Makefile|"
    "‹folder›/‹object›.‹json|yaml|txt|csv|log››",
    flag="--‹verbose|quiet|no-cache|dry-run|force|all|strict|recursive|parallel ‹2..8›|jobs ‹2..8›|timeout ‹1..9›00|"
    "output ‹file›|config ‹file›|format ‹json|text|junit|github›|filter ‹component›|exclude ‹component›|"
    "workspace|no-color|profile ‹release|ci|dev›|log-level ‹info|debug|warn›|retries ‹2..5›|tag ‹version›|"
    "‹component›-only|skip-‹component›|with-‹component›|target ‹component››",
    VARIABLE="‹CI|DEBUG|LOG_LEVEL|VERSION|TAG|COMMIT_SHA|BRANCH|IMAGE_NAME|REGISTRY|BUILD_TYPE|CACHE_DIR|API_URL|"
    "API_TOKEN|BASE_URL|DATABASE_URL|REDIS_URL|TIMEOUT|RETRIES|WORKERS|OUTPUT_DIR|ARTIFACT_NAME|RELEASE_CHANNEL|"
    "TEST_TIMEOUT|‹PROJECT›_‹TOKEN|URL|HOME|VERSION|ENV|CONFIG|CACHE|REGION|LOG›|ENABLE_‹IT›|‹IT›_‹URL|HOST|PORT|KEY|"
    "VERSION|PATH|IMAGE|TIMEOUT|ENABLED››",
    VALUE="‹true|false|1|0|info|debug|production|staging|release|‹version›|‹folder›|https://‹component›.‹domain›|"
    "${{ github.sha }}|${{ github.ref_name }}|${{ github.event.number }}|${{ runner.temp }}/‹component›|"
    "${{ github.workspace }}/‹folder›|‹component›-${{ github.run_id }}|‹image›:${{ github.sha }}|‹10..600›|"
    "${{ vars.‹SECRET› }}|${{ env.‹SECRET› }}|‹LONG_VALUE›|‹LONG_VALUE›|‹LONG_VALUE››",
    LONG_VALUE="‹${{ github.event_name == '‹pull_request|push|schedule›' && '‹component›' ¦¦ '‹component›' }}|"
    "${{ github.event.pull_request.head.‹repo.full_name|sha|ref› ¦¦ github.‹repository|sha|ref_name› }}|"
    "https://‹component›.‹domain›/‹api|v‹1..4›|download›/‹component›?‹component›=‹version›|${{ github.workspace }}/‹folder›/‹component›|"
    "postgres‹ql|›://postgres:postgres@localhost:5432/‹package›_‹component›|‹image›-‹component›:${{ github.ref_name }}-${{ github.run_number }}|"
    "${{ runner.temp }}/‹component›/‹object›-${{ github.run_id }}|${{ inputs.‹input_name› ¦¦ '‹version›' }}|"
    "${{ startsWith(github.ref, 'refs/tags/') && github.ref_name ¦¦ 'latest' }}|‹component›,‹component›,‹component›|"
    "${{ needs.‹build|prepare|changes›.outputs.‹component› }}|‹in_matrix›-‹component›|"
    "${{ format('{0}-‹component›', github.run_id) }}|s3://‹bucket›/‹component›/${{ github.sha }}|‹flag› ‹flag› ‹flag›|"
    "${{ contains(github.event.pull_request.labels.*.name, '‹label›') }}|${{ secrets.‹SECRET› ¦¦ secrets.GITHUB_TOKEN }}|"
    "arn:aws:iam::‹account›:role/‹project›-‹component›-‹cloud_environment››",
    SECRET="‹API_TOKEN|DEPLOY_KEY|NPM_TOKEN|PYPI_TOKEN|SLACK_WEBHOOK_URL|DOCKERHUB_TOKEN|AWS_ROLE_ARN|SONAR_TOKEN|"
    "CODECOV_TOKEN|GPG_PRIVATE_KEY|GPG_PASSPHRASE|SIGNING_KEY|RELEASE_TOKEN|BOT_TOKEN|PAT|GH_PAT|‹PROJECT›_‹TOKEN|KEY|"
    "SECRET|PASSWORD›|‹IT›_‹TOKEN|KEY|SECRET|PASSWORD|URL››",
    token="${{ ‹secrets.GITHUB_TOKEN|secrets.GITHUB_TOKEN|github.token|secrets.‹SECRET›› }}",
    label="‹bug|enhancement|documentation|dependencies|stale|ready-to-merge|run-ci|e2e|breaking-change|skip-changelog|"
    "needs-triage|do-not-merge|backport|area/‹component›|kind/‹bug|feature|docs›|component: ‹component››",
    message="‹chore|chore|ci|build|docs|fix|feat›: ‹verb› ‹object›‹| for ‹component›| [skip ci]›",
    cloud_environment="‹production|production|staging|staging|dev|preview|prod|qa|sandbox|‹component›-prod›",
    check="github.‹event_name == '‹push|pull_request|schedule|workflow_dispatch|release|merge_group›'|"
    "ref == 'refs/heads/‹main›'|ref == 'refs/heads/‹main›'|repository == '‹repository›'|repository_owner == '‹owner›'|"
    "event_name != 'pull_request'|actor != 'dependabot[bot]'|event.pull_request.draft == false|ref_type == 'tag'|"
    "event.pull_request.head.repo.full_name == github.repository|event.pull_request.merged == true›",
    test_of="‹startsWith(github.ref, 'refs/tags/‹v|›')|contains(github.event.pull_request.labels.*.name, '‹label›')|"
    "contains(github.event.head_commit.message, '[‹skip ci|‹component›|release›]')|endsWith(github.ref, '-‹rc|beta›')|"
    "!contains(github.event.pull_request.labels.*.name, '‹label›')|startsWith(github.head_ref, '‹release|renovate|fix›/')›",
    status="‹always()|always()|failure()|failure()|success()|!cancelled()|cancelled()|success() ¦¦ failure()›",
    condition="‹‹check›|‹check›|‹check›|‹test_of›|‹status›|‹status›|‹check› && ‹check›|‹check› && ‹test_of›|"
    "‹status› && ‹check›|‹check› ¦¦ ‹check›|github.event.inputs.‹component› == 'true'|inputs.‹component›|"
    "runner.os == '‹Linux|Windows|macOS›'|runner.os != 'Windows'|env.‹SECRET› != ''|vars.‹IT›_ENABLED == 'true'|"
    "hashFiles('‹file›') != ''|(‹check› ¦¦ ‹test_of›) && ‹check››",
    emoji="‹🚀|✅|🔧|📦|🧪|🐳|📝|🔍|🎉|⚙️|🛠️|💚|🏗️|🔒|♻️|🌙|📚|🧹›",
)
