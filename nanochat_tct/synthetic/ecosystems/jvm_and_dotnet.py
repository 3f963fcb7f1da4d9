"""Managed runtimes: Java and Kotlin with Maven or Gradle, Android, Scala, and .NET."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import CODECOV, run, use
from nanochat_tct.synthetic.template import maybe

_JAVA = use(
    "‹Set up JDK ‹java›|Set up JDK|Setup Java|Set up Java ‹java››",
    "actions/setup-java",
    {
        "distribution": "‹jdk›",
        "java-version": ("‹java›", "‹java›", 11, 17, 21),
        "cache": maybe("‹maven|gradle|sbt›", 0.3),
        "check-latest": maybe(True, 0.05),
        "server-id": maybe("‹central|ossrh|github›", 0.06),
    },
)
_JAVA_AXES = [
    Axis("java", "java", [8, 11, 17, 21, 25]),
    Axis("java-version", "java", ["11", "17", "21", "24"]),
    Axis("distribution", "jdk", ["temurin", "zulu", "corretto"]),
    Axis("os", "ubuntu", ["ubuntu-latest", "macos-latest", "windows-latest"]),
]
_MAVEN = Ecosystem(
    "maven",
    [
        _JAVA,
        use(
            "Cache local Maven repository",
            "actions/cache",
            {
                "path": "~/.m2/repository",
                "key": "${{ runner.os }}-maven-${{ hashFiles('**/pom.xml') }}",
                "restore-keys": maybe("${{ runner.os }}-maven-\n"),
            },
        ),
    ],
    {
        "lint": [
            run("‹Check style|Checkstyle›", "‹mvn|./mvnw› ‹-B |›checkstyle:check‹| -pl ‹component››"),
            run("‹Spotless|Check formatting›", "./mvnw spotless:check"),
            run("SpotBugs", "mvn -B ‹spotbugs:check|pmd:check|enforcer:enforce›"),
            run("License check", "./mvnw license:check -‹q|ntp›"),
            run("Dependency analysis", "mvn dependency:analyze -DfailOnWarning=‹true|false›"),
        ],
        "test": [
            run(
                "‹Build with Maven|Test with Maven|Run tests|Verify›",
                (
                    "mvn -B ‹verify|test|package --file pom.xml|clean verify›",
                    "./mvnw ‹-B |--batch-mode |-ntp ›‹verify|test|clean install›‹| -Pci| -DskipITs| -pl ‹component› -am›",
                    "mvn --batch-mode --update-snapshots verify",
                ),
                env=maybe({"MAVEN_OPTS": "-Xmx‹1..4›g‹| -XX:+UseG1GC›"}, 0.2),
            ),
            run(
                "Test ‹it›",
                "./mvnw -B test -pl ‹it› -am -Dtest='‹Pascal›*'‹| -Dsurefire.rerunFailingTestsCount=2›",
            ),
            run("Integration tests", "mvn -B failsafe:integration-test failsafe:verify‹| -P‹it››"),
            use(
                "Publish test report",
                "‹dorny/test-reporter|mikepenz/action-junit-report›",
                {
                    "name": maybe("‹Maven Tests|JUnit›"),
                    "report_paths": "**/surefire-reports/TEST-*.xml",
                    "reporter": maybe("java-junit"),
                },
                if_="always()",
            ),
            run("Coverage", "mvn -B jacoco:report"),
            CODECOV,
        ],
        "build": [
            run("Build", "‹mvn|./mvnw› -B package -DskipTests‹| -T ‹1C|2C|4›| -Pnative›"),
            run("Build image", "./mvnw spring-boot:build-image -Dspring-boot.build-image.imageName=‹image›"),
            run(
                "SonarCloud analysis",
                "mvn -B verify org.sonarsource.scanner.maven:sonar-maven-plugin:sonar -Dsonar.projectKey=‹owner›_‹project›",
                env={"GITHUB_TOKEN": maybe("‹token›"), "SONAR_TOKEN": "${{ secrets.SONAR_TOKEN }}"},
            ),
        ],
        "release": [
            run(
                "Import GPG key",
                'echo "$GPG_KEY" ¦ gpg --batch --import',
                env={"GPG_KEY": "${{ secrets.GPG_PRIVATE_KEY }}"},
            ),
            run(
                "‹Publish|Deploy› to ‹Maven Central|GitHub Packages|OSSRH›",
                "‹mvn|./mvnw› ‹-B |--no-transfer-progress |›deploy -P‹release|ossrh|central›‹| -DskipTests›",
                env={
                    "MAVEN_USERNAME": "${{ secrets.OSSRH_USERNAME }}",
                    "MAVEN_PASSWORD": "${{ secrets.OSSRH_‹TOKEN|PASSWORD› }}",
                    "MAVEN_GPG_PASSPHRASE": maybe("${{ secrets.GPG_PASSPHRASE }}"),
                },
            ),
            run(
                "Set version", "mvn versions:set -DnewVersion=${GITHUB_REF_NAME#v} -DgenerateBackupPoms=false"
            ),
        ],
        "docs": [run("Generate Javadoc", "mvn -B javadoc:‹aggregate|javadoc›")],
        "integration": [
            run("Run integration tests", "./mvnw verify -P‹integration|it|e2e›‹| -Dit.test=‹Pascal›IT›"),
            run(
                "Start containers",
                "docker compose -f ‹docker-compose.yml|src/test/docker/compose.yaml› up -d",
            ),
        ],
    },
    _JAVA_AXES,
    ["**.java", "pom.xml", "**/pom.xml", "src/**", ".mvn/**"],
    {
        "MAVEN_OPTS": maybe("-Xmx‹1..4›g"),
        "MAVEN_ARGS": maybe("-B -ntp", 0.4),
        "JAVA_VERSION": maybe(("‹java›", 17, 21)),
    },
    "‹maven:3-eclipse-temurin-‹17|21›|eclipse-temurin:‹17|21››",
)
_GRADLE_KINDS = {
    "lint": [
        run(
            "‹ktlint|Check style|Detekt|Lint›",
            "./gradlew ‹ktlintCheck|detekt|checkstyleMain|spotlessCheck|lint›",
        ),
        run("Check API", "./gradlew apiCheck‹| --stacktrace›"),
        use("Validate wrapper", "gradle/actions/wrapper-validation"),
        run("Check dependencies", "./gradlew ‹dependencyCheckAnalyze|buildHealth|verifyDependencies›"),
    ],
    "test": [
        run(
            "‹Build with Gradle|Test|Run tests|Check›",
            "./gradlew ‹build|test|check|clean test|‹component›:test›‹| --no-daemon| --info| --stacktrace| --continue| --parallel›",
            env=maybe({"GRADLE_OPTS": "-Dorg.gradle.jvmargs=-Xmx‹2..6›g"}, 0.15),
        ),
        run("‹Make gradlew executable|Grant execute permission for gradlew›", "chmod +x ‹./|›gradlew"),
        run(
            "Test ‹it›", "./gradlew :‹it›:‹test|check|integrationTest›‹| --tests '*‹Pascal›*'| --rerun-tasks›"
        ),
        run("Coverage report", "./gradlew ‹jacocoTestReport|koverXmlReport›"),
        CODECOV,
    ],
    "build": [
        run("Build", "./gradlew ‹assemble|build -x test|jar|shadowJar|bootJar|:‹component›:assemble›"),
        run("Build native image", "./gradlew nativeCompile‹| -Pversion=${{ github.ref_name }}›"),
        run("Publish locally", "./gradlew publishToMavenLocal‹| -Psigning.skip=true›"),
    ],
    "release": [
        run(
            "Publish",
            "./gradlew ‹publish|publishAllPublicationsToMavenCentralRepository|publishPlugins|closeAndReleaseStagingRepository›‹| --no-configuration-cache›",
            env={
                "ORG_GRADLE_PROJECT_mavenCentralUsername": "${{ secrets.MAVEN_CENTRAL_USERNAME }}",
                "ORG_GRADLE_PROJECT_mavenCentralPassword": "${{ secrets.MAVEN_CENTRAL_PASSWORD }}",
                "ORG_GRADLE_PROJECT_signingInMemoryKey": maybe("${{ secrets.GPG_SIGNING_KEY }}"),
            },
        )
    ],
    "docs": [run("Generate ‹Dokka|API docs›", "./gradlew ‹dokkaHtmlMultiModule|dokkaGenerate|javadoc›")],
    "integration": [
        run("Integration tests", "./gradlew ‹integrationTest|functionalTest|:‹component›:e2eTest›‹| --info›")
    ],
    "benchmark": [run("JMH", "./gradlew ‹jmh|:benchmarks:jmh› -Pjmh.includes='‹Pascal›.*'")],
}
_GRADLE = Ecosystem(
    "gradle",
    [
        _JAVA,
        use(
            "Setup Gradle",
            "gradle/actions/setup-gradle",
            {
                "cache-read-only": maybe("${{ github.ref != 'refs/heads/‹main›' }}", 0.3),
                "gradle-version": maybe("‹8.‹1..14›|wrapper|current›", 0.2),
                "build-scan-publish": maybe(True, 0.1),
            },
        ),
    ],
    _GRADLE_KINDS,
    _JAVA_AXES,
    ["**.kt", "**.kts", "**.java", "gradle/**", "build.gradle*"],
    {"GRADLE_OPTS": maybe("-Dorg.gradle.daemon=false"), "JAVA_VERSION": maybe(("‹java›", 17))},
    "‹gradle:8-jdk‹17|21›|eclipse-temurin:21›",
)
_ANDROID = Ecosystem(
    "android",
    [
        _JAVA,
        use("Setup Android SDK", "android-actions/setup-android"),
        use("Setup Gradle", "gradle/actions/setup-gradle"),
    ],
    {
        **_GRADLE_KINDS,
        "build": [
            run(
                "Build ‹debug APK|release bundle|‹it››",
                "./gradlew ‹assembleDebug|bundleRelease|assembleRelease|:app:assemble‹Debug|Release››",
            ),
            run(
                "Decode keystore",
                'echo "${{ secrets.KEYSTORE_BASE64 }}" ¦ base64 -d > app/‹release|upload›.jks',
            ),
            run(
                "Build Flutter app",
                "flutter build ‹apk|appbundle|ios --no-codesign|web›‹| --release| --debug›",
            ),
        ],
        "integration": [
            run(
                "Enable KVM",
                [
                    'echo \'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"\' ¦ sudo tee /etc/udev/rules.d/99-kvm4all.rules',
                    "sudo udevadm control --reload-rules",
                    "sudo udevadm trigger --name-match=kvm",
                ],
            ),
            use(
                "‹Run instrumentation tests|Connected tests›",
                "reactivecircus/android-emulator-runner",
                {
                    "api-level": (28, 30, 33, 34, "${{ matrix.api-level }}"),
                    "arch": maybe("x86_64"),
                    "target": maybe("google_apis"),
                    "script": "./gradlew connected‹Debug|›AndroidTest",
                    "disable-animations": maybe(True),
                    "emulator-options": maybe("-no-window -gpu swiftshader_indirect -noaudio"),
                },
            ),
        ],
    },
    [
        Axis("api-level", "coined", [26, 28, 30, 33, 34]),
        Axis("variant", "coined", ["debug", "release", "staging"]),
    ],
    ["app/**", "**.kt", "gradle/**"],
    {},
    "",
)
_FLUTTER = Ecosystem(
    "flutter",
    [
        use(
            "‹Set up Flutter|Setup Flutter›",
            "subosito/flutter-action",
            {
                "channel": "‹stable|stable|beta|master›",
                "flutter-version": maybe("3.‹10..35›.‹0..9›"),
                "cache": maybe(True),
            },
        ),
        run("Install dependencies", "‹flutter pub get|dart pub get|melos bootstrap›"),
    ],
    {
        "lint": [
            run("Analyze", "‹flutter|dart› analyze‹| --fatal-infos| lib test›"),
            run("Check formatting", "dart format --set-exit-if-changed ‹.|lib test›"),
        ],
        "test": [
            run("Test", "‹flutter test‹| --coverage| --reporter=expanded›|dart test -p ‹vm|chrome››"),
            CODECOV,
        ],
        "build": [
            run(
                "Build",
                "flutter build ‹apk|web|ios --no-codesign|macos|appbundle›‹| --release| --build-number=${{ github.run_number }}›",
            )
        ],
        "release": [run("Publish", "dart pub publish ‹--force|--dry-run›")],
    },
    [
        Axis("channel", "coined", ["stable", "beta", "master"]),
        Axis("sdk", "coined", ["3.1.0", "stable", "dev"]),
    ],
    ["lib/**", "pubspec.yaml", "test/**"],
    {},
    "ghcr.io/cirruslabs/flutter:‹stable|3.‹10..35›.0›",
)
_SCALA = Ecosystem(
    "scala",
    [_JAVA, use("Setup sbt", "sbt/setup-sbt"), use("‹Coursier cache|Cache sbt›", "coursier/cache-action")],
    {
        "lint": [
            run(
                "Check formatting",
                'sbt ‹scalafmtCheckAll|"scalafmtCheckAll; scalafixAll --check"|headerCheckAll›',
            )
        ],
        "test": [
            run(
                "‹Test|Run tests›",
                "sbt ‹test|+test|'project ${{ matrix.project }}' '++ ${{ matrix.scala }}' test|\"coverage; test; coverageReport\"|‹component›/test›",
            ),
            run("Check binary compatibility", "sbt ‹mimaReportBinaryIssues|versionPolicyCheck›"),
            CODECOV,
        ],
        "build": [
            run(
                "Compile",
                "sbt ‹+compile|Test/compile|assembly|‹component›/Docker/publishLocal|undeclaredCompileDependenciesTest›",
            )
        ],
        "release": [
            run(
                "Publish",
                "sbt ‹ci-release|tlCiRelease|+publishSigned›",
                env={
                    "PGP_PASSPHRASE": "${{ secrets.PGP_PASSPHRASE }}",
                    "PGP_SECRET": "${{ secrets.PGP_SECRET }}",
                    "SONATYPE_PASSWORD": "${{ secrets.SONATYPE_PASSWORD }}",
                    "SONATYPE_USERNAME": "${{ secrets.SONATYPE_USERNAME }}",
                },
            )
        ],
    },
    [
        Axis("scala", "coined", ["2.12.20", "2.13.16", "3.3.5", "3.6.4"]),
        Axis("java", "java", ["temurin@8", "temurin@11", "temurin@17"]),
    ],
    ["**.scala", "build.sbt", "project/**"],
    {"JAVA_OPTS": maybe("-Xmx‹2..8›G"), "SBT_OPTS": maybe("-Xss‹2..8›m")},
    "",
)
_DOTNET = Ecosystem(
    "dotnet",
    [
        use(
            "‹Setup .NET|Setup .NET Core|Setup dotnet|Install .NET SDK›",
            "actions/setup-dotnet",
            {
                "dotnet-version": maybe(("‹dotnet›", "‹dotnet›", "6.0.x\n8.0.x\n"), 0.8),
                "global-json-file": maybe("global.json", 0.2),
                "dotnet-quality": maybe("‹ga|preview›", 0.08),
            },
        ),
        run(
            "‹Restore|Restore dependencies|Install dependencies›",
            "dotnet restore‹| ‹Pascal›.sln| --locked-mode| ‹src›/‹Pascal››",
        ),
        use("Setup MSBuild", "microsoft/setup-msbuild"),
    ],
    {
        "lint": [
            run(
                "‹Check format|Verify formatting›",
                "dotnet format ‹--verify-no-changes|whitespace --verify-no-changes|style --severity ‹warn|info››",
            ),
            run(
                "Check packages",
                "dotnet list package --‹vulnerable|outdated|deprecated› --include-transitive",
            ),
        ],
        "test": [
            run(
                "Build",
                "dotnet build --no-restore‹| -c Release| --configuration ‹Release|Debug|${{ matrix.configuration }}›| -warnaserror›",
            ),
            run(
                "‹Test|Run tests|Unit tests›",
                (
                    "dotnet test --no-build‹| --verbosity normal| -c Release| --logger trx›",
                    'dotnet test ‹Pascal›.sln --collect:"XPlat Code Coverage"‹| --results-directory ‹folder››',
                    "dotnet test ‹tests›/‹Pascal›.‹Tests|IntegrationTests|UnitTests› --filter ‹Category!=Slow|FullyQualifiedName~‹Pascal››",
                ),
            ),
            run(
                "Coverage report",
                [
                    "dotnet tool install -g dotnet-reportgenerator-globaltool",
                    "reportgenerator -reports:**/coverage.cobertura.xml -targetdir:‹folder› -reporttypes:‹Html|Cobertura|MarkdownSummaryGithub›",
                ],
            ),
            CODECOV,
        ],
        "build": [
            run(
                "Publish",
                "dotnet publish ‹‹src›/‹Pascal›/‹Pascal›.csproj|‹Pascal›.sln› -c Release -o ‹folder›‹| -r ‹linux-x64|win-x64|osx-arm64› --self-contained| /p:PublishSingleFile=true| --no-build›",
            ),
            run(
                "Pack",
                "dotnet pack‹| --no-build› -c Release ‹-o ‹folder›|-p:PackageVersion=${{ env.VERSION }}|/p:ContinuousIntegrationBuild=true›",
            ),
            run(
                "Build solution",
                'msbuild ‹Pascal›.sln /p:Configuration=Release /p:Platform=‹x64|"Any CPU"|ARM64›‹| /m›',
            ),
        ],
        "release": [
            run("Pack", "dotnet pack -c Release -o ‹./artifacts|nupkgs›"),
            run(
                "‹Push|Publish› to ‹NuGet|nuget.org|GitHub Packages›",
                'dotnet nuget push ‹"./artifacts/*.nupkg"|**/*.nupkg› --api-key ${{ secrets.NUGET_API_KEY }} --source ‹https://api.nuget.org/v3/index.json|https://nuget.pkg.github.com/‹owner›/index.json› --skip-duplicate',
            ),
        ],
        "integration": [
            run(
                "Run integration tests",
                'dotnet test ‹tests›/‹Pascal›.IntegrationTests‹| --logger "console;verbosity=detailed"›',
            )
        ],
        "benchmark": [
            run(
                "Benchmark",
                "dotnet run -c Release --project ‹benchmarks|perf›/‹Pascal›.Benchmarks -- --filter '*‹it›*' --exporters json",
            )
        ],
    },
    [
        Axis("dotnet-version", "dotnet", ["6.0.x", "7.0.x", "8.0.x", "9.0.x", "10.0.x"]),
        Axis("configuration", "coined", ["Debug", "Release"]),
        Axis("os", "ubuntu", ["ubuntu-latest", "windows-latest", "macos-latest", "windows-2022"]),
        Axis("framework", "coined", ["net472", "net6.0", "net8.0", "net9.0"]),
    ],
    ["**.cs", "**.csproj", "**.sln", "Directory.Build.props", "global.json"],
    {
        "DOTNET_NOLOGO": maybe((True, 1)),
        "DOTNET_CLI_TELEMETRY_OPTOUT": maybe((True, 1, "1")),
        "DOTNET_SKIP_FIRST_TIME_EXPERIENCE": maybe((True, 1), 0.3),
        "BUILD_CONFIGURATION": maybe("Release", 0.3),
        "DOTNET_VERSION": maybe("‹dotnet›", 0.3),
    },
    "mcr.microsoft.com/dotnet/sdk:‹6|8|9›.0",
)

ECOSYSTEMS = [(4.0, _MAVEN), (4.0, _GRADLE), (1.2, _ANDROID), (1.2, _FLUTTER), (0.8, _SCALA), (4.0, _DOTNET)]
