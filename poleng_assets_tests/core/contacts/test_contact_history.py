"""Why somebody was contacted: what is told of earlier lists."""

from __future__ import annotations

from poleng_assets.core.contacts.contact_history import without_withheld
from poleng_assets.study.schema import Study
from poleng_assets_tests.conftest import with_policies


def test_reasons_of_an_earlier_list_are_told_without_what_is_not_shown_any_more(study: Study):
    earlier = "Sex: Female; Highest education: Primary; Mother is an immigrant: Immigrant"
    earlier = earlier.replace("Highest education", study.feature("education").title)
    assert without_withheld(earlier, study) == f"{study.feature('education').title}: Primary"
    open_study = with_policies(study, contact={"shown_reasons": None})
    assert "Sex" not in without_withheld(earlier, open_study)
