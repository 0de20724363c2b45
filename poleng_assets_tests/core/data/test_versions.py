from poleng_assets.core.data.versions import assign_id, name_and_number, newest, version_id


def test_a_new_name_is_its_own_id():
    assert assign_id("march", "aa", {}) == "march"
    assert assign_id("march", "aa", {"april": "aa", "marching@2": "aa"}) == "march"


def test_the_same_content_keeps_its_id():
    known = {"march": "aa", "march@2": "bb"}
    assert assign_id("march", "aa", known) == "march"
    assert assign_id("march", "bb", known) == "march@2"


def test_other_content_becomes_the_next_version():
    assert assign_id("march", "bb", {"march": "aa"}) == "march@2"
    assert assign_id("march", "zz", {"march": "aa", "march@2": "bb", "march@10": "cc"}) == "march@11"


def test_an_id_tells_its_name_and_number():
    assert name_and_number("march") == ("march", 1)
    assert name_and_number(version_id("march", 12)) == ("march", 12)


def test_of_each_name_the_newest_version_counts_by_number_not_by_letters():
    assert newest(["b@9", "a", "b@10", "b", "c@2"]) == ["a", "b@10", "c@2"]
    assert newest([]) == []
