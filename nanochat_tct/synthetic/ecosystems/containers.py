"""Images and clusters: Docker, Compose, Helm and Kubernetes."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import run, use
from nanochat_tct.synthetic.template import maybe

_LOGIN = use(
    "‹Login to ‹GHCR|Docker Hub|registry›|Log in to ‹the Container registry|GitHub Container Registry|Docker Hub|registry››",
    "docker/login-action",
    {
        "registry": maybe("‹registry›", 0.75),
        "username": (
            "${{ github.actor }}",
            "${{ github.repository_owner }}",
            "${{ secrets.DOCKERHUB_USERNAME }}",
            "${{ vars.DOCKER_USERNAME }}",
        ),
        "password": (
            "${{ secrets.GITHUB_TOKEN }}",
            "${{ secrets.DOCKERHUB_TOKEN }}",
            "${{ secrets.REGISTRY_PASSWORD }}",
        ),
    },
    if_=maybe("github.event_name != 'pull_request'", 0.35),
)
_METADATA = use(
    "‹Docker meta|Extract metadata (tags, labels) for Docker|Extract metadata|Image metadata›",
    "docker/metadata-action",
    {
        "images": ("‹image›", "${{ env.REGISTRY }}/${{ env.IMAGE_NAME }}", "‹image›\n‹owner›/‹project›\n"),
        "tags": maybe(
            (
                "type=ref,event=branch\ntype=ref,event=pr\ntype=semver,pattern={{version}}\n",
                "type=semver,pattern={{version}}\ntype=semver,pattern={{major}}.{{minor}}\ntype=sha‹|,prefix=|,format=long›\n",
                "type=raw,value=latest,enable={{is_default_branch}}\ntype=sha\n",
                "type=schedule,pattern=‹nightly|{{date 'YYYYMMDD'}}›\ntype=edge,branch=‹main›\n",
            ),
            0.75,
        ),
        "flavor": maybe("latest=‹auto|false|true›\n", 0.25),
    },
    id_="meta",
)
_PUSH = use(
    "‹Build and push|Build and push Docker image|Build image|Build Docker image|Build and push ‹it› image›",
    "docker/build-push-action",
    {
        "context": maybe("‹.|./‹component›|{{defaultContext}}:‹component››", 0.8),
        "file": maybe("‹‹component›/|docker/|./|build/›Dockerfile‹|.‹component››"),
        "platforms": maybe(
            (
                "linux/amd64,linux/arm64",
                "linux/amd64",
                "linux/amd64,linux/arm64,linux/arm/v7",
                "${{ matrix.platform }}",
            )
        ),
        "push": (True, "${{ github.event_name != 'pull_request' }}", False, True),
        "load": maybe(True, 0.1),
        "tags": (
            "${{ steps.meta.outputs.tags }}",
            "‹image›:latest",
            "‹image›:${{ github.sha }}",
            "‹image›:latest\n‹image›:${{ github.ref_name }}\n",
        ),
        "labels": maybe("${{ steps.meta.outputs.labels }}"),
        "cache-from": maybe("type=‹gha|registry,ref=‹image›:buildcache|gha,scope=‹component››"),
        "cache-to": maybe("type=‹gha,mode=max|registry,ref=‹image›:buildcache,mode=max›"),
        "build-args": maybe(
            (
                "VERSION=${{ github.ref_name }}\nCOMMIT=${{ github.sha }}\n",
                "‹VARIABLE›=‹VALUE›",
                "BASE_IMAGE=‹component›:‹version›\n",
            ),
            0.35,
        ),
        "target": maybe("‹production|runtime|test|‹component››", 0.2),
        "provenance": maybe(False, 0.2),
        "sbom": maybe(True, 0.1),
        "no-cache": maybe(True, 0.05),
    },
    id_=maybe(("build", "push", "docker_build")),
)
_TRIVY = use(
    "‹Run Trivy vulnerability scanner|Scan image|Trivy scan›",
    "aquasecurity/trivy-action",
    {
        "image-ref": "‹image›:‹latest|${{ github.sha }}›",
        "format": "‹sarif|table|json›",
        "output": maybe("trivy-results.sarif", 0.6),
        "severity": maybe("CRITICAL,HIGH"),
        "exit-code": maybe(("0", "1", 1)),
        "ignore-unfixed": maybe(True),
    },
)
_SARIF = use(
    "Upload ‹Trivy |›‹scan results|SARIF file|results› to GitHub Security tab",
    "github/codeql-action/upload-sarif",
    {"sarif_file": "‹trivy-results|results|‹component››.sarif"},
    if_=maybe("always()"),
)
_DOCKER = Ecosystem(
    "docker",
    [
        use(
            "Set up QEMU",
            "docker/setup-qemu-action",
            {"platforms": maybe("‹arm64|linux/amd64,linux/arm64|all›", 0.3)},
        ),
        use(
            "‹Set up Docker Buildx|Setup Buildx|Set up buildx›",
            "docker/setup-buildx-action",
            {
                "driver-opts": maybe("‹network=host|image=moby/buildkit:v0.‹12..20›.0›", 0.12),
                "version": maybe("latest", 0.1),
            },
        ),
    ],
    {
        "lint": [
            use(
                "‹Hadolint|Lint Dockerfile›",
                "hadolint/hadolint-action",
                {
                    "dockerfile": "‹|‹component›/|docker/›Dockerfile",
                    "failure-threshold": maybe("‹error|warning›"),
                    "ignore": maybe("DL30‹08|18|13›"),
                },
            ),
            run(
                "Check compose file",
                "docker compose ‹config -q|-f ‹compose.yaml|docker-compose.‹component›.yml› config›",
            ),
        ],
        "test": [
            run(
                "Build image",
                "docker build ‹-t ‹image›:test|--target test -t ‹project›|-t ‹project›:${{ github.sha }}› ‹.|‹component›|-f ‹component›/Dockerfile .›",
            ),
            run(
                "‹Test image|Run container|Run tests in container›",
                "docker run --rm ‹-v $PWD:/app |--network host |-e CI=true |›‹image›:test ‹make test|pytest|npm test|./‹script_folder›/test.sh|--version›",
            ),
            run(
                "Start services",
                [
                    "docker compose ‹-f docker-compose.‹ci|test|component›.yml |›up -d‹| --build| --wait›",
                    maybe("docker compose ps"),
                ],
            ),
            _TRIVY,
            _SARIF,
            run(
                "Show logs",
                "docker compose logs‹| --no-color| ‹component›| --tail=‹50..500››",
                if_="‹failure()|always()›",
            ),
            run("Stop services", "docker compose down‹| -v›", if_=maybe("always()")),
        ],
        "build": [
            _LOGIN,
            _METADATA,
            _PUSH,
            _TRIVY,
            _SARIF,
            run(
                "Inspect image",
                "docker ‹buildx imagetools |image |›inspect ‹image›:‹${{ steps.meta.outputs.version }}|latest›",
            ),
            run(
                "Export digest",
                [
                    "mkdir -p /tmp/digests",
                    'digest="${{ steps.build.outputs.digest }}"',
                    'touch "/tmp/digests/${digest#sha256:}"',
                ],
            ),
        ],
        "release": [
            _LOGIN,
            _METADATA,
            _PUSH,
            use("Install cosign", "sigstore/cosign-installer", {"cosign-release": maybe("v2.‹2..5›.‹0..4›")}),
            run(
                "‹Sign the published Docker image|Sign image›",
                "cosign sign --yes ‹image›@${{ steps.build.outputs.digest }}",
                env=maybe({"COSIGN_EXPERIMENTAL": (1, "true")}),
            ),
            use(
                "Generate SBOM",
                "anchore/sbom-action",
                {
                    "image": "‹image›:${{ github.sha }}",
                    "format": "‹spdx-json|cyclonedx-json›",
                    "output-file": maybe("sbom.‹spdx|cdx›.json"),
                },
            ),
            use(
                "Attest",
                "actions/attest-build-provenance",
                {
                    "subject-name": "‹image›",
                    "subject-digest": "${{ steps.build.outputs.digest }}",
                    "push-to-registry": maybe(True),
                },
            ),
            use(
                "Update description",
                "peter-evans/dockerhub-description",
                {
                    "username": "${{ secrets.DOCKERHUB_USERNAME }}",
                    "password": "${{ secrets.DOCKERHUB_TOKEN }}",
                    "repository": "‹owner›/‹project›",
                },
            ),
            run(
                "Create manifest list and push",
                [
                    'docker buildx imagetools create $(jq -cr \'.tags ¦ map("-t " + .) ¦ join(" ")\' <<< "$DOCKER_METADATA_OUTPUT_JSON") \\',
                    "  $(printf '‹image›@sha256:%s ' *)",
                ],
                working_directory="/tmp/digests",
            ),
        ],
    },
    [
        Axis("platform", "coined", ["linux/amd64", "linux/arm64", "linux/arm/v7"]),
        Axis("image", "coined", ["api", "web", "worker", "base", "migrations", "proxy"]),
        Axis("variant", "coined", ["alpine", "debian", "slim", "distroless"]),
        Axis("dockerfile", "coined", ["Dockerfile", "Dockerfile.gpu", "Dockerfile.dev"]),
    ],
    ["Dockerfile", "**/Dockerfile*", "docker/**", ".dockerignore", "docker-compose*.yml"],
    {
        "REGISTRY": maybe("‹registry›", 0.7),
        "IMAGE_NAME": maybe(("${{ github.repository }}", "‹owner›/‹project›"), 0.7),
        "DOCKER_BUILDKIT": maybe((1, "1"), 0.2),
    },
    "docker:‹dind|27-cli|latest›",
)
_HELM = Ecosystem(
    "helm",
    [use("‹Set up Helm|Install Helm|Setup Helm›", "azure/setup-helm", {"version": maybe("‹helm›", 0.8)})],
    {
        "lint": [
            run(
                "‹Lint chart|Helm lint›",
                (
                    "helm lint ‹charts/‹‹project›|‹component››|.›‹| --strict| --with-subcharts›",
                    "ct lint --config ‹ct.yaml|.github/ct.yaml›‹| --target-branch ‹main›| --check-version-increment=false›",
                ),
            ),
            use("Set up chart-testing", "helm/chart-testing-action"),
            run("‹Check docs|helm-docs›", ["helm-docs --chart-search-root charts", "git diff --exit-code"]),
            run(
                "Validate manifests",
                "helm template ‹project› charts/‹project› ¦ kubeconform -strict‹| -summary| -ignore-missing-schemas›",
            ),
            run(
                "Kustomize build",
                "kustomize build ‹overlays/‹dev|prod|staging›|deploy/‹component›› ¦ kubectl apply --dry-run=client -f -",
            ),
        ],
        "test": [
            use(
                "‹Create kind cluster|Set up kind|Create k8s Kind Cluster›",
                "helm/kind-action",
                {
                    "cluster_name": maybe("‹kind|‹project››"),
                    "node_image": maybe("kindest/node:‹kubernetes›"),
                    "config": maybe("‹tests›/kind.yaml"),
                    "version": maybe("v0.‹20..29›.0"),
                },
            ),
            run(
                "Install chart",
                (
                    "ct install‹| --all| --charts charts/‹component››",
                    "helm upgrade --install ‹project› charts/‹project› --namespace ‹component› --create-namespace --wait --timeout ‹2..15›m‹| --set image.tag=${{ github.sha }}| -f values-ci.yaml›",
                ),
            ),
            run(
                "Load image",
                "kind load docker-image ‹image›:‹dev|test|${{ github.sha }}›‹| --name ‹project››",
            ),
            run(
                "Wait for pods",
                [
                    "kubectl get pods -A",
                    "kubectl wait --for=condition=Ready pod -l app=‹component› --timeout=‹60..600›s‹| -n ‹component››",
                ],
            ),
            run(
                "‹Run e2e tests|Chainsaw tests|Test release›",
                "‹helm test ‹project›‹| --logs›|chainsaw test --test-dir ‹tests›/e2e|kubectl kuttl test|go test ./test/e2e/... -v›",
            ),
            run(
                "‹Dump|Collect› logs",
                [
                    "kubectl describe pods‹| -A| -n ‹component››",
                    "kubectl logs -l app=‹component› --tail=‹100..500›‹| --all-containers›",
                    maybe("kubectl get events -A --sort-by=.lastTimestamp"),
                ],
                if_="‹failure()|always()›",
            ),
        ],
        "release": [
            run(
                "Package chart",
                "helm package charts/‹‹project›|*› --version ${GITHUB_REF_NAME#v} --destination ‹folder›",
            ),
            run(
                "Push chart",
                [
                    "helm registry login ghcr.io -u ${{ github.actor }} -p ${{ secrets.GITHUB_TOKEN }}",
                    "helm push ‹project›-*.tgz oci://ghcr.io/‹owner›/charts",
                ],
            ),
            use(
                "Run chart-releaser",
                "helm/chart-releaser-action",
                {"charts_dir": maybe("charts"), "skip_existing": maybe(True)},
                env={"CR_TOKEN": "${{ secrets.GITHUB_TOKEN }}"},
            ),
        ],
        "deploy": [
            run(
                "Set kubeconfig",
                ["mkdir -p ~/.kube", 'echo "${{ secrets.KUBECONFIG }}" ¦ base64 -d > ~/.kube/config'],
            ),
            run(
                "Deploy",
                (
                    "helm upgrade --install ‹project› ‹charts/‹project›|./chart› -n ‹cloud_environment› --set image.tag=${{ ‹github.sha|inputs.tag› }}‹| --atomic| --wait›",
                    "kubectl set image deployment/‹component› ‹component›=‹image›:${{ github.sha }}",
                    [
                        "kubectl apply -f ‹k8s|deploy|manifests›/",
                        "kubectl rollout status deployment/‹component› --timeout=‹60..600›s",
                    ],
                ),
            ),
            run(
                "Verify rollout",
                "kubectl rollout status ‹deployment|statefulset›/‹component›‹| -n ‹component›› --timeout=‹2..10›m",
            ),
        ],
        "build": [
            run(
                "Render manifests",
                "helm template ‹project› charts/‹project›‹| --values values.yaml› > ‹folder›/manifests.yaml",
            ),
            run("Update dependencies", "helm dependency ‹update|build› charts/‹‹project›|‹component››"),
        ],
    },
    [
        Axis(
            "kubernetes-version",
            "kubernetes",
            ["v1.27.16", "v1.28.15", "v1.29.12", "v1.30.8", "v1.31.4", "v1.32.2"],
        ),
        Axis("k8s", "kubernetes", ["1.29", "1.30", "1.31"]),
        Axis("chart", "component", ["api", "web", "worker", "gateway", "common"]),
    ],
    ["charts/**", "deploy/**", "k8s/**", "helm/**", "kustomization.yaml"],
    {
        "KUBECONFIG": maybe("/tmp/kubeconfig", 0.15),
        "HELM_VERSION": maybe("‹helm›", 0.3),
        "NAMESPACE": maybe("‹component›", 0.3),
    },
)

ECOSYSTEMS = [(8.0, _DOCKER), (3.0, _HELM)]
