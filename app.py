"""The page: its configuration and its navigation, nothing else."""

import streamlit as st

from jsc_explore.views import data, explore

st.set_page_config(page_title="JSC Explore", layout="wide")
pages = [
    st.Page(explore.page, title="Explore", url_path="explore", icon=":material/grid_on:", default=True),
    st.Page(data.page, title="Data", url_path="data", icon=":material/bubble_chart:"),
]
st.navigation(pages, position="top").run()
