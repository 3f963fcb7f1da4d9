"""What the benchmarks measure on: other owners' documents, and no near-copies of what is trained on."""

from benchmarks.held_out import fold_of, is_held_out, without_copies


def test_repositories_of_an_owner_stay_together() -> None:
    owners = [f"owner-{number}" for number in range(60)]
    for owner in owners:
        repos = [f"{owner}/one", f"{owner}/two", f"{owner.upper()}/three"]
        assert len({is_held_out(repo) for repo in repos}) == len({fold_of(repo, 5) for repo in repos}) == 1
    assert {is_held_out(f"{owner}/one") for owner in owners} == {True, False}
    assert {fold_of(f"{owner}/one", 5) for owner in owners} == set(range(5))


def test_documents_of_one_template_are_near_copies() -> None:
    template = '{"on":"push","jobs":{"test":{"steps":[{"uses":"actions/checkout@v4"},{"run":"pytest -x"}]}}}'
    pinned = template.replace("v4", "08c6903cd8c0fde910a37f88322edcfb5dd907a8").replace(" -x", "  -x")
    other = template.replace("pytest", "tox")
    assert without_copies([pinned, other], [template], str) == [other]
