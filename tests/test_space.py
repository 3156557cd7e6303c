"""The hub Space: its metadata, and its page clicked through in a browser."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rucap import Captioner
from rucap.cli import messages
from rucap.model.config import Calibration
from rucap.model.folder import bundled
from toy_model import SIZE, ToyEngine, write_folder

REPOSITORY = Path(__file__).parents[1]
SPACE = REPOSITORY / "space"
PATIENCE = 60
"""Seconds for a page or an answer to come; a busy machine may need most of it."""
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,1400",
    "--lang=ru",
]


def metadata():
    return yaml.safe_load((SPACE / "README.md").read_text("utf-8").split("---\n")[1])


def test_metadata():
    found = metadata()
    assert found["sdk"] == "gradio" and (SPACE / found["app_file"]).is_file()
    assert len(found["short_description"]) <= 60  # more is refused by the hub
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {found["colorFrom"], found["colorTo"]} <= colours


def test_one_gradio_everywhere():
    requirement = next(line for line in (SPACE / "requirements.txt").read_text().split() if line.startswith("gradio"))
    assert requirement == "gradio>=6,<7" and metadata()["sdk_version"].startswith("6.")
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    assert project.count("gradio") == 1 and re.search(rf'^space = \["{requirement}", "selenium', project, re.MULTILINE)


@pytest.fixture(scope="module")
def app():
    pytest.importorskip("gradio")
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("model") / "toy", caption_calibration=Calibration(1.0, 4.0))
    return Captioner(folder, engine=ToyEngine(Captioner(folder, engine=object()).config.language_model.vocabulary))


@pytest.fixture(scope="module")
def address(app, captioner):
    page = app.build(captioner)
    _, local, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **app.looks())
    yield local
    page.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs the programs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Page:
    """What a person does with the page."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, selector):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE).until(
            lambda browser: next(iter(browser.find_elements("css selector", selector)), None)
        )

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE).until(lambda _: condition())

    def click(self, name):
        self.find(f"#{name}").click()

    def text(self, name):
        return self.find(f"#{name} textarea, #{name} input").get_attribute("value")

    def write(self, name, text):
        field = self.find(f"#{name} textarea, #{name} input")
        field.clear()
        field.send_keys(text)


@pytest.fixture
def page(browser, address):
    browser.get(address)
    return Page(browser)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(7).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.slow
def test_a_photo_is_described_and_asked_about(page, photo, captioner):
    page.find("#photo input[type=file]").send_keys(str(photo))
    page.find("#photo img")
    page.browser.execute_script("arguments[0].click()", page.find("#detail input[value=подробно]"))
    page.click("describe")
    expected = captioner.caption(photo, detail="detailed", num_captions=3)
    page.wait(lambda: page.text("caption") == expected.text)
    assert page.text("confidence") == f"{100 * expected.confidence:.0f} %"
    assert len(expected.alternatives) == 2 and expected.text != captioner.caption(photo).text
    page.wait(lambda: all(each.text in page.find("#others").text for each in expected.alternatives))

    page.write("question", "Что это?")
    page.click("ask")
    page.wait(lambda: page.text("answer") == captioner.answer(photo, "Что это?").text)
    assert page.text("answer-confidence") == "не оценивается"


@pytest.mark.slow
def test_what_goes_wrong_is_said_in_russian(page, photo, monkeypatch):
    monkeypatch.setattr(messages, "language", lambda: "ru")
    page.find("#describe")
    page.click("describe")
    page.wait(lambda: "Сначала выберите фото" in page.find("body").text)
    page.find("#photo input[type=file]").send_keys(str(photo))
    page.find("#photo img")
    page.write("question", "What is it?")
    page.click("ask")
    page.wait(lambda: "не по-русски" in page.find("body").text)
    assert page.text("answer") == ""


@pytest.mark.slow
def test_no_other_site_is_asked_for_anything(page, address):
    page.find("#describe")
    entries = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(address) for url in asked)
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", "chrome", "about:"))] == []


@pytest.mark.slow
@pytest.mark.skipif(bundled("tiny") is None, reason="needs the bundled model")
def test_it_starts_as_the_hub_starts_it(tmp_path):
    pytest.importorskip("gradio")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    with (tmp_path / "log.txt").open("w") as log:
        command = [sys.executable, metadata()["app_file"]]
        process = subprocess.Popen(command, cwd=SPACE, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        answer = first_answer(f"http://127.0.0.1:{port}/config", process)
        assert answer, (tmp_path / "log.txt").read_text()
        assert json.loads(answer)["title"].startswith("rucap")
    finally:
        process.terminate()
        process.wait()


def first_answer(address, process):
    """What is served there, once anything is; "" where the process ends or none comes."""
    for _ in range(PATIENCE * 2):
        if process.poll() is not None:
            break
        try:
            return urllib.request.urlopen(address, timeout=PATIENCE).read().decode("utf-8")
        except OSError:
            time.sleep(0.5)
    return ""
