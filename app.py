"""The page: its configuration and its navigation, nothing else."""

import streamlit as st

from jsc_explore.paths import PACKAGE
from jsc_explore.web.log_throttle import throttle_log
from jsc_explore.web.pages import compare, data, explore, overview, queue
from jsc_explore.web.state import visitor

throttle_log()
# Without an icon of the page's own, the browser would fetch that of st.Page from a foreign host.
st.set_page_config(page_title="JSC Explore", page_icon=str(PACKAGE / "web" / "icon.svg"), layout="wide")
pages = [
    st.Page(explore.page, title="Explore", url_path="explore", icon=":material/grid_on:", default=True),
    st.Page(compare.page, title="Compare", url_path="compare", icon=":material/compare_arrows:"),
    st.Page(overview.page, title="Overview", url_path="overview", icon=":material/query_stats:"),
    st.Page(data.page, title="Data", url_path="data", icon=":material/bubble_chart:"),
    st.Page(
        queue.page, title="Queue", url_path="queue", icon=":material/list:",
        visibility="visible" if visitor.is_owner() else "hidden",
    ),
]  # fmt: skip
st.navigation(pages, position="top").run()
