"""Infrastructure and sites: Terraform, AWS, Google Cloud, Azure, Ansible, and pages of documentation."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import COMMENT, run, use
from nanochat_tct.synthetic.template import maybe

_AWS = use(
    "‹Configure AWS credentials|Configure AWS Credentials|AWS login›",
    "aws-actions/configure-aws-credentials",
    {
        "role-to-assume": maybe(
            (
                "${{ secrets.AWS_ROLE_ARN }}",
                "arn:aws:iam::‹account›:role/‹project›-‹deploy|github-actions|ci›",
                "${{ vars.AWS_ROLE }}",
            ),
            0.75,
        ),
        "aws-access-key-id": maybe("${{ secrets.AWS_ACCESS_KEY_ID }}", 0.25),
        "aws-secret-access-key": maybe("${{ secrets.AWS_SECRET_ACCESS_KEY }}", 0.25),
        "aws-region": ("‹region›", "${{ env.AWS_REGION }}"),
        "role-session-name": maybe("‹project›-${{ github.run_id }}", 0.25),
        "role-duration-seconds": maybe((900, 3600, 7200), 0.2),
    },
)
_AZURE = use(
    "‹Azure login|Login to Azure|Log in with Azure›",
    "azure/login",
    {
        "creds": maybe("${{ secrets.AZURE_CREDENTIALS }}", 0.3),
        "client-id": maybe("${{ secrets.AZURE_CLIENT_ID }}", 0.8),
        "tenant-id": maybe("${{ secrets.AZURE_TENANT_ID }}", 0.8),
        "subscription-id": "${{ secrets.AZURE_SUBSCRIPTION_ID }}",
    },
)
_GOOGLE = use(
    "‹Authenticate to Google Cloud|Google auth›",
    "google-github-actions/auth",
    {
        "workload_identity_provider": maybe(
            "projects/‹100000000000..999999999999›/locations/global/workloadIdentityPools/‹github|‹project››/providers/‹github|‹owner››",
            0.7,
        ),
        "service_account": maybe("‹ci|deploy|‹component››@‹project›-‹prod|dev›.iam.gserviceaccount.com", 0.7),
        "credentials_json": maybe("${{ secrets.GCP_SA_KEY }}", 0.3),
        "token_format": maybe("access_token", 0.2),
    },
    id_=maybe("auth"),
)
_SITE_DEPLOY = [
    run(
        "Deploy to S3",
        [
            "aws s3 sync ‹folder› s3://‹bucket›‹| --delete| --cache-control max-age=‹60..86400››",
            maybe(
                "aws cloudfront create-invalidation --distribution-id ${{ secrets.CLOUDFRONT_ID }} --paths '/*'"
            ),
        ],
    ),
    run(
        "Deploy function",
        "aws lambda update-function-code --function-name ‹project›-‹component› --zip-file fileb://‹component›.zip‹| --publish›",
    ),
    run(
        "Deploy service",
        [
            "aws ecs update-service \\",
            "  --cluster ‹project›-‹cloud_environment› \\",
            "  --service ‹component› \\",
            "  --force-new-deployment",
        ],
    ),
    run(
        "Wait for ‹deployment|service›",
        "aws ecs wait services-stable --cluster ‹project›-‹cloud_environment› --services ‹component›",
    ),
    run(
        "‹SAM deploy|CDK deploy|Serverless deploy›",
        "‹sam deploy --no-confirm-changeset --no-fail-on-empty-changeset --stack-name ‹project›-‹component›|npx cdk deploy --require-approval never‹| --all›|npx serverless deploy --stage ‹dev|prod›|pulumi up --yes --stack ‹owner›/‹cloud_environment››",
    ),
    run(
        "‹Health check|Smoke test|Verify deployment›",
        (
            "curl -fsS https://‹component|api|www›.‹domain›/‹health|healthz|status›",
            [
                "for attempt in $(seq 1 ‹5..30›); do",
                '  if curl -fsS "https://‹component›.‹domain›/health"; then exit 0; fi',
                "  sleep ‹3..20›",
                "done",
                "exit 1",
            ],
        ),
    ),
]
_TERRAFORM = Ecosystem(
    "terraform",
    [
        use(
            "‹Setup Terraform|Set up Terraform|Terraform setup›",
            "hashicorp/setup-terraform",
            {
                "terraform_version": maybe("‹terraform›", 0.85),
                "terraform_wrapper": maybe(False, 0.3),
                "cli_config_credentials_token": maybe("${{ secrets.TF_API_TOKEN }}", 0.1),
            },
        ),
        _AWS,
    ],
    {
        "lint": [
            run("Terraform ‹fmt|format›", "terraform fmt -check‹| -recursive| -diff›", id_=maybe("fmt")),
            run(
                "Terraform validate",
                ["terraform init -backend=false", "terraform validate‹| -no-color›"],
                id_=maybe("validate"),
            ),
            run(
                "TFLint", "tflint ‹--init && tflint --recursive|-f compact|--minimum-failure-severity=error›"
            ),
            run("Checkov", "checkov -d ‹.|infra|modules› ‹--quiet|--framework terraform|--soft-fail›"),
            run(
                "Check docs",
                "terraform-docs markdown table --output-file README.md --output-check ‹.|modules/‹component››",
            ),
        ],
        "test": [
            run(
                "Terraform Init",
                "terraform init‹| -input=false| -backend-config=env/‹component›.hcl›",
                working_directory=maybe("‹infra|terraform|environments/${{ matrix.environment }}›"),
            ),
            run(
                "Terraform Plan",
                "terraform plan -no-color‹| -out=tfplan| -input=false -lock=false| -var-file=‹dev|prod|staging›.tfvars›",
                id_=maybe("plan"),
                continue_on_error=maybe(True, 0.3),
                env=maybe({"TF_VAR_‹component›": "‹VALUE›", "TF_VAR_region": maybe("‹region›")}, 0.3),
            ),
            run("Terratest", ["cd test", "go test -v -timeout ‹20..90›m"]),
            COMMENT,
            run(
                "Cost estimate",
                "infracost breakdown --path ‹.|tfplan› --format json --out-file infracost.json",
            ),
        ],
        "deploy": [
            run("Terraform Init", "terraform init‹| -input=false›"),
            run("Select workspace", "terraform workspace select ‹-or-create |›‹cloud_environment›"),
            run(
                "Terraform ‹Apply|apply›",
                'terraform apply -auto-approve‹| -input=false| tfplan| -var="image_tag=${{ github.sha }}"›',
                if_=maybe("‹check›"),
            ),
            run(
                "Terraform Output",
                'echo "‹component›_url=$(terraform output -raw ‹component›_url)" >> $GITHUB_OUTPUT',
                id_="output",
            ),
        ],
        "build": [
            run(
                "Run packer", "packer build‹| -var-file=‹component›.pkrvars.hcl| -force› ‹component›.pkr.hcl"
            ),
            run("Ansible lint", "ansible-lint ‹playbooks|roles/‹component››"),
            run(
                "Run playbook",
                "ansible-playbook -i inventory/‹cloud_environment› ‹site|‹component››.yml‹| --check| --tags ‹component››",
                env=maybe({"ANSIBLE_HOST_KEY_CHECKING": False, "ANSIBLE_FORCE_COLOR": maybe("1")}),
            ),
            run("Molecule", "molecule test‹| -s ‹default|‹component›››"),
        ],
    },
    [
        Axis("environment", "component", ["dev", "staging", "prod"]),
        Axis("module", "component", ["network", "database", "cluster", "iam", "storage", "dns"]),
        Axis("terraform", "terraform", ["1.5.7", "1.9.8", "latest"]),
        Axis("region", "region", ["us-east-1", "eu-west-1", "ap-southeast-2"]),
    ],
    ["**.tf", "**.tfvars", "terraform/**", "infra/**", "modules/**"],
    {
        "TF_IN_AUTOMATION": maybe((True, 1, "true")),
        "AWS_REGION": maybe("‹region›", 0.6),
        "TF_VERSION": maybe("‹terraform›", 0.3),
        "ARM_CLIENT_ID": maybe("${{ secrets.ARM_CLIENT_ID }}", 0.15),
    },
    "hashicorp/terraform:‹1.5|1.9|latest›",
)
_AWS_APP = Ecosystem(
    "aws",
    [_AWS, use("Login to Amazon ECR", "aws-actions/amazon-ecr-login", id_=maybe("login-ecr", 0.9))],
    {
        "build": [
            run(
                "Build, tag, and push image",
                [
                    "docker build -t $ECR_REGISTRY/$ECR_REPOSITORY:$IMAGE_TAG .",
                    "docker push $ECR_REGISTRY/$ECR_REPOSITORY:$IMAGE_TAG",
                    maybe('echo "image=$ECR_REGISTRY/$ECR_REPOSITORY:$IMAGE_TAG" >> $GITHUB_OUTPUT'),
                ],
                env={
                    "ECR_REGISTRY": "${{ steps.login-ecr.outputs.registry }}",
                    "ECR_REPOSITORY": "‹project›‹|-‹component››",
                    "IMAGE_TAG": "${{ github.sha }}",
                },
                id_=maybe("build-image"),
            ),
            *_SITE_DEPLOY[1:3],
        ],
        "deploy": _SITE_DEPLOY,
        "integration": _SITE_DEPLOY[3:],
        "test": [
            run(
                "Validate template",
                "aws cloudformation validate-template --template-body file://‹component›.‹yaml|json›",
            ),
            run("SAM build", ["sam validate --lint", "sam build‹| --use-container›"]),
        ],
    },
    [
        Axis("region", "region", ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"]),
        Axis("service", "component", ["api", "worker", "scheduler", "web"]),
    ],
    ["lambda/**", "template.yaml", "cdk/**", "services/**"],
    {
        "AWS_REGION": maybe("‹region›", 0.8),
        "ECR_REPOSITORY": maybe("‹project›"),
        "ECS_CLUSTER": maybe("‹project›-‹cloud_environment›", 0.4),
    },
)
_CLOUD = Ecosystem(
    "clouds",
    [
        _GOOGLE,
        use(
            "Set up Cloud SDK",
            "google-github-actions/setup-gcloud",
            {"project_id": maybe("‹project›-‹prod|dev›"), "version": maybe(">= 4‹00..99›.0.0", 0.2)},
        ),
        _AZURE,
    ],
    {
        "build": [
            run("Configure Docker", "gcloud auth configure-docker ‹region›-docker.pkg.dev‹| --quiet›"),
            run(
                "Build and push",
                [
                    "gcloud builds submit --tag ‹region›-docker.pkg.dev/‹project›/‹component›/‹project›:${{ github.sha }}‹| --timeout=‹600..3600›s›"
                ],
            ),
            run("ACR build", "az acr build --registry ‹flat› --image ‹component›:${{ github.sha }} ."),
        ],
        "deploy": [
            use(
                "Deploy to Cloud Run",
                "google-github-actions/deploy-cloudrun",
                {"service": "‹component›", "region": "‹region›", "image": "‹image›:${{ github.sha }}"},
            ),
            run(
                "Deploy",
                (
                    "gcloud run deploy ‹component› --image ‹image›:${{ github.sha }} --region ‹region›‹| --quiet| --allow-unauthenticated›",
                    "az webapp deploy --resource-group ‹project›-rg --name ‹project›-‹component› --src-path ‹component›.zip",
                    "gcloud app deploy ‹--quiet|app.yaml --version=${{ github.run_number }}›",
                ),
            ),
            use(
                "Deploy to Azure Web App",
                "azure/webapps-deploy",
                {
                    "app-name": "‹project›-‹component›",
                    "package": "‹folder›",
                    "slot-name": maybe("‹Production|staging›"),
                    "publish-profile": maybe("${{ secrets.AZURE_PUBLISH_PROFILE }}"),
                },
            ),
            run(
                "Deploy Bicep",
                "az deployment group create -g ‹project›-rg -f ‹infra/main|main|‹component››.bicep -p environment=‹dev|prod›",
            ),
            use(
                "Deploy to Firebase",
                "FirebaseExtended/action-hosting-deploy",
                {
                    "repoToken": "${{ secrets.GITHUB_TOKEN }}",
                    "firebaseServiceAccount": "${{ secrets.FIREBASE_SERVICE_ACCOUNT }}",
                    "channelId": maybe("live"),
                    "projectId": "‹project›",
                },
            ),
            *_SITE_DEPLOY[5:],
        ],
        "test": [
            run("What-if", "az deployment group what-if -g ‹project›-rg -f main.bicep"),
            run("Test function", 'gcloud functions call ‹component› --data \'{"name": "‹component›"}\''),
        ],
    },
    [
        Axis("region", "region", ["us-central1", "europe-west4", "asia-east1", "eastus", "westeurope"]),
        Axis("service", "component", ["api", "web", "jobs"]),
    ],
    ["functions/**", "infra/**", "app.yaml", "**.bicep"],
    {
        "PROJECT_ID": maybe("‹project›-‹prod|dev›"),
        "GAR_LOCATION": maybe("‹region›"),
        "SERVICE": maybe("‹component›"),
        "AZURE_WEBAPP_NAME": maybe("‹project›", 0.3),
    },
)
_SITE = Ecosystem(
    "site",
    [
        use("Setup Pages", "actions/configure-pages", {"enablement": maybe(True, 0.15)}, id_=maybe("pages")),
        use(
            "Setup Hugo",
            "peaceiris/actions-hugo",
            {"hugo-version": "‹latest|0.1‹10..45›.‹0..9››", "extended": maybe(True)},
        ),
    ],
    {
        "build": [
            run(
                "‹Build|Build with Hugo|Build site›",
                '‹hugo --minify‹| --baseURL "${{ steps.pages.outputs.base_url }}/"| --gc›|mkdocs build|npx @11ty/eleventy|zola build|mdbook build ‹docs›|make html›',
            ),
            run(
                "Check HTML",
                "‹htmltest ./public|htmlproofer ./_site --disable-external|vnu --skip-non-html public›",
            ),
            use(
                "Upload ‹artifact|Pages artifact›",
                "actions/upload-pages-artifact",
                {"path": maybe("‹./public|_site|site|./‹docs›/build|book›", 0.9)},
            ),
        ],
        "deploy": [
            use("‹Deploy to GitHub Pages|Deploy›", "actions/deploy-pages", id_="deployment"),
            use(
                "‹Deploy|Publish› to gh-pages",
                "peaceiris/actions-gh-pages",
                {
                    "github_token": "${{ secrets.GITHUB_TOKEN }}",
                    "publish_dir": "‹./public|./_site|./‹docs›/_build/html|site›",
                    "cname": maybe("‹domain›", 0.3),
                    "force_orphan": maybe(True, 0.2),
                    "destination_dir": maybe(
                        "‹dev|${{ github.ref_name }}|pr-${{ github.event.number }}›", 0.2
                    ),
                },
                if_=maybe("github.ref == 'refs/heads/‹main›'"),
            ),
        ],
        "docs": [
            run("Build", "‹hugo|mkdocs build --strict|make docs›"),
            use("Preview", "rossjrw/pr-preview-action", {"source-dir": "‹folder›"}),
        ],
        "lint": [
            run("Lint Markdown", "npx markdownlint-cli2 '**/*.md'"),
            run("Check prose", "vale ‹docs|content›‹| --minAlertLevel=error›"),
            use(
                "Link checker",
                "lycheeverse/lychee-action",
                {"args": "--no-progress ‹'**/*.md'|./public/**/*.html›", "fail": maybe(True)},
                id_=maybe("lychee"),
            ),
        ],
        "test": [
            run("Accessibility", "npx pa11y-ci --sitemap https://‹domain›/sitemap.xml"),
            run("Lighthouse", "npx lhci autorun‹| --collect.staticDistDir=./public›"),
        ],
    },
    [
        Axis("language", "coined", ["en", "de", "ja", "zh"]),
        Axis("site", "component", ["docs", "blog", "www"]),
    ],
    ["docs/**", "**.md", "content/**", "mkdocs.yml"],
    {"HUGO_VERSION": maybe("0.1‹10..45›.0", 0.5), "HUGO_ENVIRONMENT": maybe("production", 0.3)},
)

ECOSYSTEMS = [(3.5, _TERRAFORM), (3.0, _AWS_APP), (2.5, _CLOUD), (4.0, _SITE)]
