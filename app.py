"""The page: its configuration and its navigation, nothing else."""

import streamlit as st

from jsc_explore.views import explore

st.set_page_config(page_title="JSC Explore", layout="wide")
st.navigation([st.Page(explore.page, title="Explore", url_path="explore", default=True)], position="hidden").run()
