"""Languages that compile to machine code: Rust, Go, C and C++, Swift and Zig."""

from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.steps import CODECOV, run, use
from nanochat_tct.synthetic.template import compile_value, maybe

_RUST_TARGETS = [
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
    "wasm32-unknown-unknown",
    "thumbv7em-none-eabihf",
]
_SYSTEMS = ["ubuntu-latest", "ubuntu-22.04", "macos-14", "macos-latest", "windows-latest", "windows-2022"]

_RUST = Ecosystem(
    "rust",
    [
        compile_value(
            (
                use(
                    "‹Install Rust|Install toolchain|Setup Rust|Install Rust toolchain|Install stable toolchain›",
                    "‹dtolnay/rust-toolchain|dtolnay/rust-toolchain|actions-rust-lang/setup-rust-toolchain›",
                    {
                        "toolchain": maybe("‹rust›", 0.6),
                        "components": maybe("‹rustfmt|clippy|rustfmt, clippy|llvm-tools-preview|miri›", 0.4),
                        "targets": maybe(
                            "‹wasm32-unknown-unknown|x86_64-unknown-linux-musl|aarch64-apple-darwin›", 0.2
                        ),
                    },
                ),
                run(
                    "‹Install Rust|Install toolchain|Update toolchain›",
                    (
                        "rustup toolchain install ‹rust› --profile minimal",
                        "rustup update ‹rust› && rustup default ‹rust›",
                        [
                            "rustup set profile minimal",
                            "rustup toolchain install ‹rust›",
                            "rustup component add clippy rustfmt",
                        ],
                    ),
                ),
            )
        ),
        use(
            "‹Rust cache|Cache cargo|Cache›",
            "Swatinem/rust-cache",
            {
                "shared-key": maybe("‹component›", 0.3),
                "workspaces": maybe("‹component›", 0.15),
                "save-if": maybe("${{ github.ref == 'refs/heads/‹main›' }}", 0.3),
                "key": maybe("${{ matrix.os }}", 0.1),
            },
        ),
        use(
            "Install ‹it›",
            "taiki-e/install-action",
            {
                "tool": "‹cargo-nextest|cargo-llvm-cov|cargo-hack|cross|just|nextest|cargo-deny|wasm-pack›‹|@0.‹1..9›.‹0..90››"
            },
        ),
    ],
    {
        "lint": [
            run("‹Check formatting|rustfmt|Format|cargo fmt›", "cargo fmt --all ‹-- --check|--check›"),
            run(
                "‹Clippy|Run clippy|cargo clippy|Lint›",
                "cargo clippy ‹--all-targets|--workspace|--all-targets --all-features|--all-features›‹| --locked› -- -D warnings",
            ),
            run(
                "‹Check docs|Rustdoc›",
                "cargo doc --no-deps‹| --workspace| --all-features| --document-private-items›",
                env={"RUSTDOCFLAGS": "-D warnings"},
            ),
            run("Check features", "cargo hack check --feature-powerset --no-dev-deps‹| --depth ‹1..3››"),
            use(
                "cargo-deny",
                "EmbarkStudios/cargo-deny-action",
                {"command": maybe("check ‹licenses|advisories|bans›"), "arguments": maybe("--all-features")},
            ),
            run(
                "‹Unused dependencies|Machete›", ["cargo install cargo-machete‹| --locked›", "cargo machete"]
            ),
            run("Check spelling", "typos ‹.|‹src›|docs›"),
        ],
        "test": [
            run(
                "‹Test|Run tests|cargo test|Run unit tests›",
                (
                    "cargo test‹| --all| --workspace| --all-features| --locked| --release| --verbose| -p ‹project›-‹component››",
                    "cargo nextest run‹| --workspace| --profile ci| --all-features| --no-fail-fast›",
                    "cargo test --target ${{ matrix.target }}",
                ),
                env=maybe({"RUST_BACKTRACE": (1, "1", "full"), "RUSTFLAGS": maybe("-D warnings")}, 0.2),
            ),
            run("Doc tests", "cargo test --doc‹| --workspace| --all-features›"),
            run(
                "Test ‹no default features|with all features|minimal features›",
                "cargo test ‹--no-default-features|--all-features|--no-default-features --features ‹it››",
            ),
            run(
                "Check ‹it›",
                "cargo check -p ‹project›-‹it›‹| --target wasm32-unknown-unknown| --no-default-features| --locked›",
            ),
            run(
                "‹Coverage|Generate code coverage›",
                "cargo ‹llvm-cov --workspace --lcov --output-path lcov.info|tarpaulin --out xml --timeout ‹1..6›00›",
            ),
            run(
                "Miri",
                ["rustup component add miri", "cargo miri setup", "cargo miri test‹| -p ‹it››"],
                env=maybe({"MIRIFLAGS": "-Zmiri-strict-provenance"}),
            ),
            CODECOV,
        ],
        "build": [
            run(
                "Build",
                (
                    "cargo build‹| --release| --verbose| --all-targets| --release --locked| --workspace›",
                    "‹cargo|cross› build --release --target ‹${{ matrix.target }}|x86_64-unknown-linux-musl›",
                ),
            ),
            run("Strip ‹binary|symbols›", "strip target/release/‹binary›"),
            run(
                "‹Package|Archive›",
                [
                    "mkdir -p dist",
                    "cp target/release/‹binary› README.md LICENSE‹|-MIT› dist/",
                    "tar -C dist -czf ‹project›-${{ github.ref_name }}.tar.gz .",
                ],
            ),
            run("Build wasm", "wasm-pack build --target ‹web|nodejs|bundler›‹| --release| crates/‹it››"),
            run("Check MSRV", "cargo ‹+1.‹65..85› check|msrv verify›‹| --all-features›"),
            run("Check semver", "cargo semver-checks ‹check-release|--baseline-rev origin/‹main››"),
        ],
        "release": [
            run("Build", "‹cargo|cross› build --release --locked‹| --target ${{ matrix.target }}›"),
            run(
                "Publish to crates.io",
                "cargo publish‹| --no-verify| -p ‹project›-‹it›| --token ${{ secrets.CARGO_REGISTRY_TOKEN }}›",
                env=maybe({"CARGO_REGISTRY_TOKEN": "${{ secrets.CARGO_REGISTRY_TOKEN }}"}, 0.7),
            ),
            use(
                "Run release-plz",
                "release-plz/action",
                {"command": "release‹|-pr›"},
                env={
                    "GITHUB_TOKEN": "‹token›",
                    "CARGO_REGISTRY_TOKEN": "${{ secrets.CARGO_REGISTRY_TOKEN }}",
                },
            ),
        ],
        "docs": [
            run(
                "Build docs",
                [
                    "cargo doc --no-deps‹| --all-features›",
                    'echo \'<meta http-equiv="refresh" content="0; url=‹package›">\' > target/doc/index.html',
                ],
            ),
            run("Build book", "mdbook ‹build|test› ‹docs|book›"),
        ],
        "benchmark": [
            run(
                "Run benchmarks",
                "cargo bench‹| --bench ‹component›| -- --output-format bencher ¦ tee output.txt| -p ‹component››",
            ),
            run("Fuzz ‹it›", "cargo ‹+nightly |›fuzz run ‹it› -- -max_total_time=‹3..60›0"),
        ],
    },
    [
        Axis("rust", "rust", ["1.70.0", "1.75.0", "stable", "beta", "nightly"]),
        Axis("toolchain", "rust", ["stable", "beta", "nightly"]),
        Axis("target", "coined", _RUST_TARGETS),
        Axis("os", "ubuntu", _SYSTEMS),
    ],
    ["**.rs", "Cargo.toml", "Cargo.lock", "crates/**", "rust-toolchain.toml"],
    {
        "CARGO_TERM_COLOR": maybe("always", 0.8),
        "RUST_BACKTRACE": maybe((1, "1", "short")),
        "RUSTFLAGS": maybe("‹-D warnings|-Dwarnings|-C debuginfo=0›"),
        "CARGO_INCREMENTAL": maybe((0, "0"), 0.3),
    },
    "‹rust:1.‹70..86›‹|-slim|-alpine›|ghcr.io/cross-rs/x86_64-unknown-linux-musl:main›",
)
_GO = Ecosystem(
    "go",
    [
        use(
            "‹Set up Go|Setup Go|Install Go|Setup Go environment›",
            "actions/setup-go",
            {
                "go-version": maybe("‹go›", 0.6),
                "go-version-file": maybe("go.mod", 0.5),
                "cache": maybe((True, False), 0.3),
                "check-latest": maybe(True, 0.1),
                "cache-dependency-path": maybe("**/go.sum", 0.1),
            },
        ),
        run("‹Download modules|Get dependencies|Install dependencies›", "go mod ‹download|tidy|verify›"),
    ],
    {
        "lint": [
            use(
                "golangci-lint",
                "golangci/golangci-lint-action",
                {
                    "version": maybe("‹v1.‹54..64›.‹0..8›|latest|v2.‹0..4››", 0.8),
                    "args": maybe("--timeout=‹3..15›m‹| --verbose›", 0.5),
                    "working-directory": maybe("‹component›", 0.15),
                    "only-new-issues": maybe(True, 0.1),
                },
            ),
            run("‹Vet|go vet›", "go vet ./..."),
            run(
                "‹Check formatting|gofmt›",
                ['if [ -n "$(gofmt ‹-s |›-l .)" ]; then', "  gofmt -d .", "  exit 1", "fi"],
            ),
            run("‹Check go mod tidy|go mod tidy›", ["go mod tidy", "git diff --exit-code‹| go.mod go.sum›"]),
            run("staticcheck", "go run honnef.co/go/tools/cmd/staticcheck@‹latest|202‹3..5›.1› ./..."),
            run(
                "‹Check generated code|Verify codegen|go generate›",
                ["‹go generate ./...|make generate|make manifests generate›", "git diff --exit-code"],
            ),
            run(
                "‹Vulnerability check|govulncheck›",
                ["go install golang.org/x/vuln/cmd/govulncheck@latest", "govulncheck ./..."],
            ),
            run("Check licenses", "go run github.com/google/go-licenses@‹latest|v1.6.0› check ./..."),
        ],
        "test": [
            run(
                "‹Test|Run tests|Unit tests|Run unit tests›",
                (
                    "go test ‹-race |-v |›./...",
                    "go test ‹-v |›‹-race |›-coverprofile=‹coverage.out|coverage.txt› ‹-covermode=atomic |›./...",
                    "make test‹|-unit›",
                    "gotestsum --junitfile ‹file› -- -race ./...",
                    "go test -count=1 -timeout ‹5..40›m ./‹component|pkg|internal›/...",
                ),
                env=maybe({"CGO_ENABLED": (0, 1, "0")}, 0.1),
            ),
            run("Build", "go build ‹-v |›./..."),
            run(
                "Test ‹it›", "go test ‹-v|-run Test‹Pascal›|-short|-tags=‹it›› ./‹pkg|internal|cmd›/‹it›/..."
            ),
            run(
                "Coverage",
                [
                    "go tool cover -func=coverage.out",
                    maybe("go tool cover -html=coverage.out -o coverage.html"),
                ],
            ),
            CODECOV,
        ],
        "build": [
            run(
                "Build",
                (
                    "go build ‹-v |›./...",
                    "go build -o bin/‹binary› ‹./cmd/‹binary›|.›",
                    'CGO_ENABLED=0 go build -ldflags "-s -w -X main.version=${{ github.ref_name }}" -o ‹dist|bin›/‹binary› ./cmd/‹binary›',
                    "make build‹|-all›",
                ),
                env=maybe(
                    {
                        "GOOS": "‹linux|darwin|windows|${{ matrix.goos }}›",
                        "GOARCH": "‹amd64|arm64|${{ matrix.goarch }}›",
                        "CGO_ENABLED": maybe((0, "0")),
                    },
                    0.3,
                ),
            ),
            use(
                "‹Run GoReleaser|GoReleaser snapshot›",
                "goreleaser/goreleaser-action",
                {"version": maybe("‹latest|~> v2›"), "args": "release --snapshot --clean‹| --skip=publish›"},
            ),
            run(
                "Cross-compile ‹it›",
                [
                    "for os in linux darwin windows; do",
                    "  GOOS=$os GOARCH=‹amd64|arm64› go build -o dist/‹it›-$os ./cmd/‹it›",
                    "done",
                ],
            ),
            run("Check binary", ["./bin/‹binary› ‹version|--help|--version›", maybe("file bin/‹binary›")]),
        ],
        "release": [
            use(
                "Run GoReleaser",
                "goreleaser/goreleaser-action",
                {
                    "distribution": maybe("goreleaser"),
                    "version": maybe("‹latest|~> v2|v1.‹18..26›.‹0..2››"),
                    "args": "release --clean‹| --timeout ‹30..90›m| --release-notes ‹file››",
                },
                env={
                    "GITHUB_TOKEN": "‹token›",
                    "HOMEBREW_TAP_TOKEN": maybe("${{ secrets.HOMEBREW_TAP_TOKEN }}", 0.3),
                    "GORELEASER_KEY": maybe("${{ secrets.GORELEASER_KEY }}", 0.1),
                },
            ),
            run("Build binaries", "make ‹release|dist|build-all|cross›"),
        ],
        "integration": [
            run(
                "Run e2e tests",
                "‹make test-e2e|go test ‹-v |›-tags=e2e ./‹test|tests›/e2e/...|make integration›",
                timeout_minutes=maybe((20, 30, 45)),
            ),
            run("Start ‹it›", ["go run ./cmd/‹it› ‹flag› &", "sleep ‹2..9›"]),
            run(
                "Install ‹kind|ginkgo|envtest|mockgen›",
                "go install ‹sigs.k8s.io/kind@v0.‹17..29›.0|github.com/onsi/ginkgo/v2/ginkgo@latest|sigs.k8s.io/controller-runtime/tools/setup-envtest@latest|go.uber.org/mock/mockgen@v0.‹2..5›.0›",
            ),
        ],
        "benchmark": [
            run("Benchmark", "go test -run=^$ -bench=. -benchmem -count=‹3..10› ./... ¦ tee ‹file›"),
            run("Compare", "benchstat ‹base.txt ‹file›|old.txt new.txt›"),
            run("Fuzz", "go test -fuzz=Fuzz‹Pascal› -fuzztime=‹10..90›s ./‹it›"),
        ],
    },
    [
        Axis("go-version", "go", ["1.20", "1.21", "1.22", "1.23", "1.24", "1.25", "stable"]),
        Axis("go", "go", ["1.21.x", "1.22.x", "1.23.x", "1.24.x"]),
        Axis("goos", "coined", ["linux", "darwin", "windows", "freebsd"]),
        Axis("goarch", "coined", ["amd64", "arm64", "386"]),
        Axis("os", "ubuntu", _SYSTEMS),
    ],
    ["**.go", "go.mod", "go.sum", ".golangci.yml", "cmd/**", "internal/**", "pkg/**"],
    {
        "GO_VERSION": maybe("‹go›"),
        "CGO_ENABLED": maybe((0, "0"), 0.2),
        "GOFLAGS": maybe("-mod=‹readonly|vendor›", 0.2),
        "GOTOOLCHAIN": maybe("local", 0.15),
        "GOPRIVATE": maybe("github.com/‹owner›/*", 0.15),
    },
    "golang:1.‹21..25›‹|-alpine|-bookworm›",
)
_CMAKE = Ecosystem(
    "cmake",
    [
        run(
            "‹Install dependencies|Install packages|Install build dependencies›",
            (
                [
                    "sudo apt-get update‹| -q›",
                    "sudo apt-get install -y ‹ninja-build|cmake ninja-build|ccache ninja-build|build-essential cmake|libboost-all-dev cmake|clang-‹14..19› lld›‹| libssl-dev| libgtest-dev| zlib1g-dev| libgl1-mesa-dev| doxygen graphviz›",
                ],
                "brew install ‹ninja|cmake ninja|llvm|ccache›",
                "choco install ninja‹| ccache| doxygen.install› -y",
            ),
        ),
        use(
            "‹Setup|Install› ‹ninja|CMake|cmake and ninja›",
            "‹lukka/get-cmake|seanmiddleditch/gha-setup-ninja|jwlawson/actions-setup-cmake›",
        ),
        use(
            "ccache",
            "hendrikmuhs/ccache-action",
            {
                "key": "${{ ‹matrix.os|runner.os|github.job› }}‹|-${{ matrix.compiler }}|-‹component››",
                "max-size": maybe("‹200M|500M|1G|2G›"),
            },
        ),
    ],
    {
        "lint": [
            run(
                "clang-format",
                (
                    "find ‹src|include|.› -name '*.‹cpp|h|cc|hpp›' ¦ xargs clang-format ‹--dry-run -Werror|-i --style=file›",
                    ["git ls-files '*.cpp' '*.hpp' ¦ xargs clang-format-‹14..19› -i", "git diff --exit-code"],
                ),
            ),
            run(
                "‹clang-tidy|Run clang-tidy›",
                "‹run-clang-tidy -p build|cmake --build build --target clang-tidy›",
            ),
            run(
                "cppcheck",
                "cppcheck --enable=‹all|warning,performance› --error-exitcode=1‹| --inline-suppr| --suppressions-list=.cppcheck› ‹src›",
            ),
            run("Check format of CMake files", "cmake-format --check CMakeLists.txt"),
        ],
        "test": [
            run(
                "‹Configure|Configure CMake|CMake configure›",
                (
                    "cmake -B build‹| -G Ninja| -S .› -DCMAKE_BUILD_TYPE=‹cmake›‹| -D‹PROJECT›_BUILD_TESTS=ON| -DBUILD_SHARED_LIBS=‹ON|OFF›| -DENABLE_‹SANITIZERS|COVERAGE|LTO›=ON›",
                    "cmake --preset ‹ci|release|debug|${{ matrix.preset }}|linux-gcc›",
                    [
                        "cmake -S . -B ${{ github.workspace }}/build \\",
                        "  -DCMAKE_BUILD_TYPE=‹cmake› \\",
                        "  -DCMAKE_CXX_COMPILER=‹g++|clang++|${{ matrix.compiler }}› \\",
                        maybe("  -D‹PROJECT›_‹WITH|ENABLE|USE›_‹IT›=‹ON|OFF› \\"),
                        "  -DCMAKE_CXX_STANDARD=‹14|17|20|23›",
                    ],
                ),
            ),
            run(
                "Build",
                (
                    "cmake --build build‹| --config ‹cmake›| -j$(nproc)| --parallel ‹2..8››",
                    "ninja -C build‹| -v›",
                    "make -C build -j‹2..8›",
                    "cmake --build --preset ‹ci|release›",
                ),
            ),
            run(
                "Test",
                (
                    "ctest --test-dir build‹| --output-on-failure| -C ‹cmake›| -j‹2..8› --output-on-failure›",
                    "ctest --output-on-failure‹| --timeout ‹1..9›00| -L ‹component››",
                    [
                        "cd build",
                        "ctest --output-on-failure",
                        maybe("./tests/‹package›_tests --gtest_output=xml:‹file›"),
                    ],
                ),
            ),
            run("Install", "cmake --install build --prefix ‹folder›"),
            run(
                "Memory check", "valgrind --leak-check=full --error-exitcode=1 ./build/‹tests›/‹package›_test"
            ),
            run(
                "Coverage",
                [
                    "lcov --capture --directory build --output-file coverage.info",
                    "lcov --remove coverage.info '/usr/*' '*/‹tests|third_party|_deps›/*' -o coverage.info",
                    "genhtml coverage.info -o ‹folder›",
                ],
            ),
            CODECOV,
        ],
        "build": [
            run(
                "Configure",
                "cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=‹cmake›‹| -DCMAKE_INSTALL_PREFIX=‹folder›| -DCMAKE_OSX_ARCHITECTURES='x86_64;arm64'›",
            ),
            run("Build", "cmake --build build --target ‹all|install|package|‹binary››"),
            run(
                "Package",
                (
                    "cpack --config build/CPackConfig.cmake -G ‹TGZ|DEB|ZIP|RPM|NSIS›",
                    ["cd build", "cpack -G ‹TGZ|DEB|ZIP›"],
                ),
            ),
            run(
                "Build ‹it›",
                "./configure --prefix=‹folder› ‹--enable|--with|--disable›-‹it› && make -j$(nproc)",
            ),
            run(
                "Make distribution",
                ["./autogen.sh", "./configure‹| --enable-debug| --disable-shared›", "make dist‹|check›"],
            ),
        ],
        "docs": [run("Run Doxygen", "doxygen ‹docs›/Doxyfile")],
        "benchmark": [
            run("Benchmark", "./build/bench/‹package›_bench --benchmark_format=json --benchmark_out=‹file›"),
            run("Fuzz", "./build/fuzz/‹it›_fuzzer -max_total_time=‹60..900› ‹folder›"),
        ],
    },
    [
        Axis(
            "compiler", "coined", ["gcc-11", "gcc-12", "gcc-13", "clang-15", "clang-17", "clang-18", "msvc"]
        ),
        Axis("build_type", "cmake", ["Debug", "Release", "RelWithDebInfo"]),
        Axis("sanitizer", "coined", ["address", "undefined", "thread", "memory"]),
        Axis("cxx", "coined", [11, 14, 17, 20, 23]),
        Axis("os", "ubuntu", _SYSTEMS),
    ],
    ["**.cpp", "**.hpp", "**.h", "**.c", "CMakeLists.txt", "cmake/**", "include/**"],
    {
        "BUILD_TYPE": maybe("‹cmake›"),
        "CC": maybe("‹gcc|clang|gcc-‹11..14››", 0.3),
        "CXX": maybe("‹g++|clang++›", 0.3),
        "CTEST_OUTPUT_ON_FAILURE": maybe((1, "1"), 0.4),
        "CMAKE_GENERATOR": maybe("Ninja", 0.2),
    },
    "‹ubuntu:‹20.04|22.04|24.04›|gcc:‹11..14›|debian:‹bookworm|trixie›|alpine:3.‹17..22›|fedora:‹38..42››",
)
_SWIFT = Ecosystem(
    "swift",
    [
        compile_value(
            (
                use(
                    "‹Select Xcode|Set up Xcode›",
                    "maxim-lobanov/setup-xcode",
                    {"xcode-version": ("latest-stable", "1‹5|6›.‹0..4›", 15.4, 16.2)},
                ),
                run(
                    "‹Select Xcode ‹15..16›|Set Xcode version›",
                    "sudo xcode-select -s /Applications/Xcode_1‹5|6›.‹0..4›.app",
                ),
            )
        ),
        run(
            "‹Install dependencies|Resolve packages›",
            "‹brew install ‹swiftlint|xcbeautify|tuist›|swift package resolve|bundle install|pod install --repo-update›",
        ),
    ],
    {
        "lint": [
            run("‹SwiftLint|Lint›", "swiftlint ‹--strict|lint --reporter github-actions-logging›"),
            run("Check format", "swift‹format lint -r| format lint --recursive --strict› Sources Tests"),
        ],
        "test": [
            run("Build", "swift build‹| -v| -c release| --build-tests›"),
            run(
                "‹Run tests|Test›",
                (
                    "swift test‹| -v| --parallel| --enable-code-coverage| --sanitize=thread›",
                    [
                        "set -o pipefail",
                        "xcodebuild test \\",
                        "  -scheme ‹Pascal› \\",
                        "  -destination 'platform=iOS Simulator,name=iPhone 1‹4|5|6›‹| Pro›,OS=1‹7|8›.‹0..5›' \\",
                        "  CODE_SIGNING_ALLOWED=NO ¦ xcbeautify",
                    ],
                ),
            ),
        ],
        "build": [
            run(
                "Build ‹app|archive›",
                [
                    "xcodebuild -‹workspace ‹Pascal›.xcworkspace|project ‹Pascal›.xcodeproj› \\",
                    "  -scheme ‹Pascal› -configuration ‹Debug|Release› \\",
                    "  -sdk ‹iphonesimulator|iphoneos|macosx› ‹build|archive›",
                ],
            ),
            run(
                "Fastlane",
                "bundle exec fastlane ‹beta|build|test|ios ‹it››",
                env=maybe(
                    {
                        "MATCH_PASSWORD": "${{ secrets.MATCH_PASSWORD }}",
                        "FASTLANE_USER": maybe("${{ secrets.FASTLANE_USER }}"),
                    }
                ),
            ),
        ],
        "release": [
            run(
                "Import signing certificate",
                [
                    'echo "$CERTIFICATE" ¦ base64 --decode > certificate.p12',
                    'security create-keychain -p "$KEYCHAIN_PASSWORD" build.keychain',
                    "security default-keychain -s build.keychain",
                    'security unlock-keychain -p "$KEYCHAIN_PASSWORD" build.keychain',
                    'security import certificate.p12 -k build.keychain -P "$CERTIFICATE_PASSWORD" -T /usr/bin/codesign',
                ],
                env={
                    "CERTIFICATE": "${{ secrets.MACOS_CERTIFICATE }}",
                    "CERTIFICATE_PASSWORD": "${{ secrets.MACOS_CERTIFICATE_PASSWORD }}",
                    "KEYCHAIN_PASSWORD": "${{ secrets.KEYCHAIN_PASSWORD }}",
                },
            ),
            run(
                "Notarize",
                'xcrun notarytool submit ‹Pascal›.zip --apple-id "${{ secrets.APPLE_ID }}" --team-id "${{ secrets.TEAM_ID }}" --wait',
            ),
            run("Upload to TestFlight", "bundle exec fastlane ‹beta|release|upload›"),
        ],
        "docs": [
            run(
                "Build DocC",
                "swift package --allow-writing-to-directory ‹folder› generate-documentation --target ‹Pascal› --output-path ‹folder›",
            )
        ],
    },
    [
        Axis("xcode", "coined", ["14.3.1", "15.4", "16.1", "16.4"]),
        Axis("swift", "coined", ["5.9", "5.10", "6.0", "6.1"]),
        Axis("os", "ubuntu", ["macos-13", "macos-14", "macos-15", "ubuntu-latest"]),
    ],
    ["**.swift", "Package.swift", "Sources/**", "Tests/**"],
    {"DEVELOPER_DIR": maybe("/Applications/Xcode_16.‹0..4›.app/Contents/Developer")},
    "swift:‹5.9|5.10|6.0|6.1›‹|-jammy|-noble›",
)
_ZIG = Ecosystem(
    "zig",
    [use("‹Setup Zig|Install Zig›", "mlugg/setup-zig", {"version": maybe(("0.1‹1..5›.0", "master"), 0.7)})],
    {
        "lint": [run("Check formatting", "zig fmt --check ‹.|src build.zig›")],
        "test": [
            run("Test", "zig build test‹| --summary all| -Doptimize=ReleaseSafe›"),
            run(
                "Build",
                "zig build‹| -Dtarget=‹aarch64|x86_64›-‹linux|macos|windows›| -Doptimize=Release‹Fast|Safe|Small››",
            ),
        ],
        "build": [run("Build ‹it›", "zig build ‹it›‹| -Dcpu=baseline›")],
    },
    [
        Axis("target", "coined", ["x86_64-linux", "aarch64-linux", "x86_64-windows", "aarch64-macos"]),
        Axis("os", "ubuntu", _SYSTEMS),
    ],
    ["**.zig", "build.zig.zon"],
)

ECOSYSTEMS = [(8.0, _RUST), (8.0, _GO), (6.0, _CMAKE), (1.8, _SWIFT), (0.5, _ZIG)]
