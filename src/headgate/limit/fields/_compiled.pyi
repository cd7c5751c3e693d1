from headgate.limit._decision import Decision
from headgate.limit._policies import Fields, Policies, Style

def fields_of(decision: Decision, name: str | None, policies: Policies, style: Style) -> Fields: ...
