"""stub to be replaced"""
def page() -> None:
    """x."""
