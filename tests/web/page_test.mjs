// page_test.mjs - drives the web page in Chromium. Started by page.sh, which says where the driver is.
//
//     node tests/web/page_test.mjs          against the mock: every behaviour
//     node tests/web/page_test.mjs URL      against a running server: what does not need a certain answer

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Mock, thoughtText } from './mock_server.mjs';

const { chromium } = createRequire(process.env.BW_WEB_DRIVER)('playwright-core');
const real = process.argv[2];
const shots = process.env.BW_WEB_SHOTS;
const key = process.env.BW_WEB_KEY; // the server's, typed in where the page asks for it
const phone = { viewport: { width: 360, height: 740 } };

const tests = []; // {name, run, options, live}: live ones run against a server too

const test = (name, run, options = {}) => tests.push({ name, run, options });
const liveTest = (name, run, options = {}) => tests.push({ name, run, options, live: true });

function check(condition, what) {
  if (!condition) throw new Error(what);
}

function equal(got, want, what) {
  check(JSON.stringify(got) === JSON.stringify(want), `${what}: ${JSON.stringify(got)}, not ${JSON.stringify(want)}`);
}

/** Sends; an answer may be over when this returns, if it was short. */
async function ask(page, what) {
  const before = await page.locator('article.assistant').count();
  await page.fill('#input', what);
  await page.keyboard.press('Enter');
  await page.locator('article.assistant').nth(before).waitFor();
}

const answered = (page) => page.waitForSelector('article.assistant:last-child:not(.live)', { timeout: 60000 });
const settled = (page) => page.waitForFunction(() => document.getElementById('model').textContent !== '');
const text = (page, selector) => page.locator(selector).last().innerText();

async function askAndWait(page, what) {
  await ask(page, what);
  await answered(page);
}

// ---- what holds for every server ---------------------------------------------------------------

liveTest('the_page_comes_up_and_names_the_model', async ({ page }) => {
  check((await text(page, '#model')).length > 0, 'no model is named');
  check(await page.locator('#banner').isHidden(), 'a banner is shown');
  check(await page.locator('#send').isDisabled(), 'an empty message can be sent');
});

liveTest('an_answer_streams_and_its_figures_are_shown', async ({ page }) => {
  await askAndWait(page, 'Tell me a story about a sheep.');
  const message = await page.locator('article.assistant').innerText();
  check(message.length > 20, `the answer is ${JSON.stringify(message)}`);
  check(/\d tokens?/.test(await text(page, '.facts')), 'the answer has no figures');
  check(/\d/.test(await text(page, '.speed .value')), 'the strip has no speed');
  check(/\d+ of \d+/.test(await text(page, '.cache .value')), 'the strip has no cache figures');
  check(await page.locator('.chart canvas').count() === 1, 'there is no chart');
});

liveTest('the_second_turn_comes_from_the_cache', async ({ page }) => {
  await askAndWait(page, 'Tell me a story about a sheep.');
  await askAndWait(page, 'And another one.');
  const [, cached] = /^([\d,]+) of/.exec(await text(page, '.cache .value'));
  check(cached !== '0', 'no prompt token came from the cache');
});

liveTest('escape_stops_an_answer', async ({ page, mock }) => {
  await page.route('**/v1/chat/completions', (route) => // or a small model might be done too early
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), ignore_eos: true, loop_guard: false }) }));
  await ask(page, 'endless talk, please: tell me a very long story');
  await page.waitForFunction(() => document.querySelector('article.assistant.live').innerText.length > 60);
  await page.keyboard.press('Escape');
  await answered(page);
  equal(await text(page, '.notice'), 'Stopped.', 'what the message says');
  if (!mock) return;
  await page.waitForTimeout(200);
  equal(mock.left, 1, 'clients the server saw leave');
});

liveTest('nothing_is_wider_than_a_phone', async ({ page }) => {
  await askAndWait(page, 'plain');
  for (const open of [false, true]) {
    if (open) await page.click('[aria-label="All figures"]');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(wide <= 0, `the page is ${wide} pixels too wide`);
    const cut = await page.evaluate(() => [...document.querySelectorAll('main button, main h1, .cell')]
      .filter((e) => e.offsetParent && (e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0)).length);
    equal(cut, 0, 'parts that stand out of the window');
  }
}, phone);

// ---- the conversation --------------------------------------------------------------------------

test('markdown_becomes_headings_code_and_tables', async ({ page }) => {
  await askAndWait(page, 'plain');
  for (const [selector, n] of [['.answer h2', 1], ['.answer ol li', 3], ['.answer .code pre code', 1], ['.answer table tr', 3], ['.answer blockquote', 1]]) {
    equal(await page.locator(selector).count(), n, selector);
  }
  equal(await text(page, '.code-head span'), 'c', 'the language');
  equal(await page.locator('.answer a').getAttribute('rel'), 'noopener noreferrer', 'rel of a link');
});

test('code_can_be_copied', async ({ page }) => {
  await askAndWait(page, 'plain');
  await page.click('[aria-label="Copy the code"]');
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  check(copied.startsWith('/* Accept while'), `copied was ${JSON.stringify(copied)}`);
}, { permissions: ['clipboard-read', 'clipboard-write'] });

test('thinking_is_open_while_it_streams_then_folded', async ({ page }) => {
  await ask(page, 'slow and deep');
  await page.waitForSelector('.thinking.now[open]');
  check(/^Thinking/.test(await text(page, '.thinking summary')), 'it does not say that it thinks');
  await page.waitForSelector('.thinking:not([open])', { state: 'attached', timeout: 30000 });
  check(/^Thought for [\d.]+ s$/.test(await text(page, '.thinking summary')), `it says ${await text(page, '.thinking summary')}`);
  await page.click('.thinking summary');
  await page.waitForTimeout(300);
  check(await page.locator('.thinking[open]').count() === 1, 'what the reader opened was closed again');
  check((await text(page, '.thought')).startsWith('The user asks'), 'the thought is not shown');
});

test('reasoning_goes_back_with_the_history', async ({ page, mock }) => {
  await askAndWait(page, 'What does the name mean?');
  await askAndWait(page, 'And then?');
  const [question, answer, next] = mock.requests[1].messages;
  equal([question.role, answer.role, next.role], ['user', 'assistant', 'user'], 'roles');
  equal(answer.reasoning_content, thoughtText, 'the reasoning');
  check(answer.content.includes('walks ahead'), 'the answer is missing');
});

test('an_answer_can_be_made_again', async ({ page, mock }) => {
  await askAndWait(page, 'plain');
  await page.click('[aria-label="Answer again"]');
  await page.waitForSelector('article.assistant.live');
  await answered(page);
  equal(await page.locator('article').count(), 2, 'messages');
  equal(mock.requests[1].messages, mock.requests[0].messages, 'messages sent again');
});

test('a_message_can_be_edited_and_sent_again', async ({ page, mock }) => {
  await askAndWait(page, 'plain one');
  await askAndWait(page, 'plain two');
  await page.locator('article.user').first().hover();
  await page.locator('[aria-label="Edit and send again"]').first().click();
  await page.fill('.edit textarea', 'plain three');
  await page.click('text=Send again');
  await page.waitForSelector('article.assistant.live');
  await answered(page);
  equal(await page.locator('article').count(), 2, 'messages');
  equal(mock.requests[2].messages, [{ role: 'user', content: 'plain three' }], 'what was sent');
  equal(await text(page, '#title'), 'plain three', 'the title');
});

test('regenerating_a_running_answer_leaves_one_stream', async ({ page, mock }) => {
  await askAndWait(page, 'plain one');
  await page.locator('article.user').first().hover();
  await page.locator('[aria-label="Edit and send again"]').first().click();
  await page.fill('.edit textarea', 'endless');
  await page.keyboard.press('Enter');
  await page.waitForSelector('article.assistant.live');
  await page.locator('article.user').first().hover();
  await page.locator('[aria-label="Edit and send again"]').first().click();
  await page.fill('.edit textarea', 'endless again');
  await page.keyboard.press('Enter');
  await page.waitForTimeout(500);
  equal([mock.left, mock.running], [1, 1], 'streams left and running');
  check(await page.locator('article.assistant.live').count() === 1, 'the new answer does not stream');
  equal(await page.locator('#send').getAttribute('aria-label'), 'Stop', 'the button');
});

test('shift_enter_makes_a_new_line_and_enter_sends', async ({ page, mock }) => {
  await page.focus('#input');
  await page.keyboard.type('one');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('two');
  await page.keyboard.press('Enter');
  await answered(page);
  equal(mock.requests[0].messages[0].content, 'one\ntwo', 'what was sent');
});

test('a_loop_and_a_limit_are_said', async ({ page }) => {
  await askAndWait(page, 'loop');
  equal(await text(page, '.notice'), 'Stopped: the answer had begun to repeat itself.', 'what the message says');
});

// ---- settings and figures ----------------------------------------------------------------------

test('settings_show_the_servers_defaults_and_are_sent', async ({ page, mock }) => {
  await page.click('#open-settings');
  equal(await page.locator('[name=temperature]').getAttribute('placeholder'), '0.6', 'default of temperature');
  await page.locator('.choice label', { hasText: 'Off' }).click();
  equal(await page.locator('[name=temperature]').getAttribute('placeholder'), '0.7', 'default without thinking');
  const values = { temperature: 0.3, top_p: 0.9, top_k: 40, min_p: 0.05, presence_penalty: 0.5, frequency_penalty: -0.5, repetition_penalty: 1.1, seed: 7, max_tokens: 99 };
  for (const [name, value] of Object.entries(values)) await page.fill(`[name=${name}]`, String(value));
  await page.fill('[name=system]', 'Be brief.');
  await page.click('text=Save');
  await askAndWait(page, 'plain');
  const sent = mock.requests[0];
  for (const [name, value] of Object.entries(values)) equal(sent[name], value, name);
  equal(sent.chat_template_kwargs, { enable_thinking: false }, 'chat_template_kwargs');
  equal(sent.messages[0], { role: 'system', content: 'Be brief.' }, 'the first message');
});

test('without_settings_nothing_is_sent_but_the_messages', async ({ page, mock }) => {
  await askAndWait(page, 'plain');
  equal(Object.keys(mock.requests[0]), ['messages', 'stream', 'stream_options'], 'fields of the request');
});

test('a_setting_out_of_range_is_not_saved', async ({ page }) => {
  await page.click('#open-settings');
  await page.fill('[name=temperature]', '3');
  await page.click('text=Save');
  check(await page.locator('dialog#settings[open]').count() === 1, 'the dialog was closed');
});

test('the_strip_shows_acceptance_cache_queue_and_context', async ({ page }) => {
  await ask(page, 'slow');
  await page.waitForFunction(() => document.querySelectorAll('.bars i').length === 3, null, { timeout: 10000 });
  await page.keyboard.press('Escape');
  await askAndWait(page, 'plain');
  equal(await page.locator('.bars i').count(), 3, 'bars');
  const heights = await page.locator('.bars b').evaluateAll((bars) => bars.map((b) => b.clientHeight));
  check(heights[0] > heights[1] && heights[1] > heights[2] && heights[2] > 0, `bars are ${heights} high`);
  check(/^\d+ %$/.test(await text(page, '.accepted .value')), 'no share of accepted drafts');
  await page.click('[aria-label="All figures"]');
  equal(await text(page, '.queue .value'), '0 running', 'the queue');
  equal(await text(page, '.room .note'), 'of 4,096', 'the context');
  check((await page.locator('.chart').boundingBox()).height > 80, 'the chart did not grow');
});

test('a_short_answer_has_a_curve_too', async ({ page }) => {
  await askAndWait(page, 'short');
  await page.waitForTimeout(100);
  const drawn = await page.locator('.chart canvas').evaluate((canvas) =>
    canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0));
  check(drawn, 'the chart is empty');
});

test('a_miss_is_explained', async ({ page }) => {
  await askAndWait(page, 'plain');
  check(/^text differs at token \d+$/.test(await text(page, '.cache .note')), `it says ${await text(page, '.cache .note')}`);
});

test('images_are_refused_with_a_reason', async ({ page }) => {
  equal(await page.locator('#image').getAttribute('aria-disabled'), 'true', 'aria-disabled');
  equal(await page.locator('#image').getAttribute('title'), 'This server runs without vision.', 'the reason');
  await page.click('#image', { force: true }); // the driver waits for what is disabled
  equal(await text(page, '#toast'), 'This server runs without vision.', 'the reason when pressed');
});

// ---- when things go wrong ----------------------------------------------------------------------

test('a_key_is_asked_for_and_kept', async ({ page, mock }) => {
  mock.key = 'secret';
  await page.reload();
  await page.fill('dialog#key input', 'secret');
  await page.keyboard.press('Enter');
  await settled(page);
  await askAndWait(page, 'plain');
  await page.reload();
  await settled(page);
  equal(await page.locator('dialog[open]').count(), 0, 'questions after a reload');
});

test('a_wrong_key_is_asked_for_again', async ({ page, mock }) => {
  mock.key = 'secret';
  await page.reload();
  await page.fill('dialog#key input', 'wrong');
  await page.keyboard.press('Enter');
  await page.waitForSelector('dialog#key:has-text("was refused")');
});

test('a_full_server_is_waited_for', async ({ page }) => {
  await ask(page, 'full');
  await page.waitForSelector('.notice:has-text("The server is full. Trying again in 2 seconds.")');
  await page.waitForSelector('.notice:has-text("Trying again in 1 second.")');
  await answered(page);
  check((await text(page, '.answer')).includes('walks ahead'), 'no answer came');
});

test('waiting_for_a_full_server_can_be_stopped', async ({ page, mock }) => {
  mock.refusals = 100;
  await ask(page, 'full');
  await page.waitForSelector('.notice:has-text("Trying again")');
  await page.keyboard.press('Escape');
  await answered(page);
  equal(await text(page, '.notice'), 'Stopped.', 'what the message says');
});

test('a_loading_server_shows_its_progress', async ({ page, mock }) => {
  mock.ready = false;
  await page.reload();
  await page.waitForSelector('#banner:has-text("Loading model 40 %")');
  await ask(page, 'plain');
  await page.waitForSelector('.notice:has-text("The model is loading: 40 % done. Trying again")');
  mock.ready = true;
  await answered(page);
  check(await page.locator('#banner').isHidden(), 'the banner is still there');
});

test('a_lost_connection_is_said_and_can_be_tried_again', async ({ page }) => {
  await askAndWait(page, 'cut');
  equal(await text(page, '.notice span'), 'The connection was lost before the answer was complete.', 'what the message says');
  check((await text(page, '.answer')).includes('walks ahead'), 'what had come is gone');
  await page.click('text=Try again');
  await page.waitForSelector('article.assistant.live');
});

test('an_answer_that_never_began_is_not_sent_back', async ({ page, mock }) => {
  mock.refusals = 100;
  await ask(page, 'full');
  await page.waitForSelector('.notice:has-text("Trying again")');
  await page.keyboard.press('Escape');
  await answered(page);
  await askAndWait(page, 'plain');
  equal(mock.requests.at(-1).messages, [{ role: 'user', content: 'full' }, { role: 'user', content: 'plain' }], 'what was sent');
});

test('an_error_within_a_stream_is_said', async ({ page }) => {
  await askAndWait(page, 'broken');
  equal(await text(page, '.notice span'), 'The engine met damaged weights.', 'what the message says');
});

test('a_server_that_is_gone_is_looked_for', async ({ page, mock, url }) => {
  mock.close();
  await page.fill('#input', 'plain');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.notice button');
  equal(await text(page, '.notice span'), 'The server cannot be reached.', 'what the message says');
  await page.waitForSelector('#banner:has-text("cannot be reached")');
  await mock.listen(Number(new URL(url).port));
  await page.waitForSelector('#banner', { state: 'hidden' });
});

test('hostile_markdown_does_nothing', async ({ page, outside }) => {
  await askAndWait(page, 'evil');
  await page.waitForTimeout(300);
  equal(await page.evaluate(() => window.hacked ?? null), null, 'what a script set');
  equal(outside, [], 'requests to other hosts');
  const found = await page.evaluate(() => document.querySelectorAll('.answer :is(script, iframe, style, form, input, img, use, [onclick], [style], [id], .bubble, a[href^="javascript"])').length);
  equal(found, 0, 'elements that should be gone');
  check((await text(page, '.answer')).includes('after'), 'the harmless text is gone too');
}, { expected: /Content Security Policy/ }); // speaks up while DOMPurify parses, before it cleans

// ---- conversations -----------------------------------------------------------------------------

test('conversations_survive_a_reload', async ({ page }) => {
  await askAndWait(page, 'plain one');
  await page.reload();
  await settled(page);
  await page.click('#chats .chat');
  equal(await page.locator('article').count(), 2, 'messages');
  check(/\d tokens/.test(await text(page, '.facts')), 'the figures are gone');
});

test('an_answer_cut_by_a_reload_says_so', async ({ page }) => {
  await ask(page, 'endless');
  await page.waitForTimeout(2500);
  await page.reload();
  await settled(page);
  await page.click('#chats .chat');
  equal(await text(page, '.notice'), 'The page was closed before this answer was complete.', 'what the message says');
  check((await text(page, '.answer')).length > 20, 'what had come is gone');
});

test('a_deleted_conversation_can_be_taken_back', async ({ page }) => {
  await askAndWait(page, 'plain one');
  await page.click('[aria-label^="Delete"]');
  equal(await page.locator('#chats .chat').count(), 0, 'conversations');
  await page.click('text=Undo');
  equal(await page.locator('#chats .chat').count(), 1, 'conversations after undo');
  await page.waitForTimeout(300);
  await page.reload();
  await settled(page);
  equal(await page.locator('#chats .chat').count(), 1, 'conversations after a reload');
});

test('conversations_are_exported_and_imported', async ({ page }) => {
  await askAndWait(page, 'plain one');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  const path = await download.path();
  check(JSON.parse(readFileSync(path, 'utf8')).chats[0].messages.length === 2, 'the file lacks the messages');
  await page.click('[aria-label^="Delete"]');
  await page.setInputFiles('#import-file', path);
  await page.waitForSelector('#chats .chat');
  await page.click('#chats .chat');
  check((await text(page, '.answer')).includes('walks ahead'), 'the answer was not imported');
});

test('a_file_that_is_no_export_is_refused', async ({ page }) => {
  await page.setInputFiles('#import-file', { name: 'x.json', mimeType: 'application/json', buffer: Buffer.from('{"a": 1}') });
  await page.waitForSelector('#toast:has-text("x.json was not imported: it is no export of this page")');
});

test('an_answer_goes_on_while_another_conversation_is_open', async ({ page }) => {
  await ask(page, 'plain one');
  await page.click('#new-chat');
  equal(await page.locator('article').count(), 0, 'messages of the new one');
  await page.waitForSelector('#chats li:not(.day):not(.running)');
  await page.click('#chats .chat');
  check((await text(page, '.answer')).includes('for why'), 'the answer is not complete');
});

// ---- looks -------------------------------------------------------------------------------------

test('the_end_is_followed_only_by_those_who_are_there', async ({ page }) => {
  await ask(page, 'slow');
  await page.waitForFunction(() => document.getElementById('scroller').scrollTop > 200, null, { timeout: 30000 });
  const gap = () => page.evaluate(() => { const s = document.getElementById('scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight; });
  check(await gap() < 5, 'the end is not in sight');
  await page.mouse.move(600, 300);
  await page.mouse.wheel(0, -150);
  await page.waitForTimeout(300);
  const top = await page.evaluate(() => document.getElementById('scroller').scrollTop);
  await page.waitForTimeout(1000);
  equal(await page.evaluate(() => document.getElementById('scroller').scrollTop), top, 'the place of who reads further up');
  await page.click('[aria-label="Go to the end"]');
  await page.waitForTimeout(300);
  check(await gap() < 5, 'the end is not in sight after the button');
  await page.keyboard.press('Escape');
  await answered(page);
  await askAndWait(page, 'cut');
  await page.waitForTimeout(100);
  check(await gap() < 5, 'the end is not in sight when the answer is over');
});

test('nothing_jumps_while_an_answer_streams', async ({ page }) => {
  await page.evaluate(() => {
    window.shifted = 0;
    new PerformanceObserver((l) => { for (const e of l.getEntries()) window.shifted += e.value; }).observe({ type: 'layout-shift' });
  });
  await askAndWait(page, 'plain');
  await page.waitForTimeout(300);
  const shifted = await page.evaluate(() => window.shifted);
  check(shifted < 0.002, `the layout shifted by ${shifted.toFixed(4)}`);
});

test('every_control_has_a_name', async ({ page }) => {
  await askAndWait(page, 'plain');
  await page.click('#open-settings');
  const bare = await page.evaluate(() => [...document.querySelectorAll('button, input, textarea')]
    .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.hidden)).map((e) => e.outerHTML));
  equal(bare, [], 'controls without a name');
});

test('the_keyboard_reaches_everything_and_shows_where_it_is', async ({ page }) => {
  await askAndWait(page, 'plain');
  const seen = new Set();
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const e = document.activeElement;
      const ring = getComputedStyle(e).outlineStyle !== 'none' || Boolean(e.closest('.box:focus-within'));
      return { name: e.id || e.getAttribute('aria-label') || e.className, ring };
    });
    check(at.name === '' || at.ring, `${at.name} has the focus but does not show it`);
    seen.add(at.name);
  }
  for (const name of ['new-chat', 'export', 'open-settings', 'scroller', 'Copy the code', 'Answer again', 'input', 'All figures']) {
    check(seen.has(name), `Tab does not reach ${name}; it reached ${[...seen].join(', ')}`);
  }
});

test('the_list_is_a_drawer_on_a_phone', async ({ page }) => {
  await askAndWait(page, 'plain');
  check(!(await page.locator('#new-chat').isVisible()), 'the list is in the way');
  await page.click('#open-sidebar');
  await page.waitForTimeout(300);
  check(await page.locator('#new-chat').isVisible(), 'the list did not open');
  await page.keyboard.press('Escape');
  await page.waitForTimeout(300);
  check(!(await page.locator('#new-chat').isVisible()), 'the list did not close');
}, phone);

// ---- pictures, to be looked at -----------------------------------------------------------------

async function takePictures(browser, url) {
  for (const [name, width, height] of [['desktop', 1280, 860], ['phone', 360, 740]]) {
    for (const colorScheme of ['light', 'dark']) {
      const context = await browser.newContext({ viewport: { width, height }, colorScheme });
      const page = await context.newPage();
      const shot = (what) => page.screenshot({ path: `${shots}/${real ? 'server-' : ''}${name}-${colorScheme}-${what}.png` });
      await page.goto(url);
      if (key) await giveKey(page);
      await settled(page);
      await shot('1-empty');
      await ask(page, 'slow and deep');
      await page.waitForTimeout(2500);
      await shot('2-thinking');
      await page.keyboard.press('Escape');
      await answered(page);
      await askAndWait(page, 'What does the name Bellwether mean?');
      await shot('3-answer');
      await page.click('[aria-label="All figures"]');
      await page.waitForTimeout(300);
      await shot('4-figures');
      await page.click('[aria-label="All figures"]');
      await page.click('#open-settings');
      await shot('5-settings');
      await page.keyboard.press('Escape');
      if (name === 'phone') {
        await page.click('#open-sidebar');
        await page.waitForTimeout(300);
        await shot('6-list');
        await page.keyboard.press('Escape');
      }
      if (!real) {
        await askAndWait(page, 'cut');
        await shot('7-error');
      }
      await context.close();
    }
  }
}

// ---- running -----------------------------------------------------------------------------------

async function giveKey(page) {
  await page.fill('dialog#key input', key);
  await page.keyboard.press('Enter');
}

async function runOne(browser, { run, options: { expected, ...options } }) {
  const mock = real ? null : new Mock();
  const url = real ?? (await mock.listen());
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  const outside = [];
  const complaints = [];
  page.on('request', (request) => { if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(url)) outside.push(request.url()); });
  page.on('pageerror', (error) => complaints.push(error.stack ?? String(error)));
  // Chromium reports every failed request by itself; what our own code or the policy says is a complaint.
  page.on('console', (message) => { if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) complaints.push(message.text()); });
  try {
    await page.goto(url);
    if (key) await giveKey(page);
    await settled(page);
    await run({ page, mock, url, outside });
    equal(complaints.filter((line) => !expected?.test(line)), [], 'what the browser complains of');
    equal(outside, [], 'requests to other hosts');
  } finally {
    await context.close();
    mock?.close();
  }
}

const browser = await chromium.launch({ executablePath: process.env.BW_WEB_CHROMIUM, args: ['--no-sandbox'] });
const only = process.env.BW_WEB_ONLY;
let failed = 0;
for (const one of tests.filter((t) => (t.live || !real) && (!only || t.name.includes(only)))) {
  const name = real ? `with_the_server_${one.name}` : one.name;
  try {
    await runOne(browser, one);
    console.log(`ok ${name}`);
  } catch (error) {
    failed++;
    console.log(`not ok ${name}: ${error.message.split('\n').slice(0, 3).join(' ')}`);
  }
}
if (shots) {
  const mock = real ? null : new Mock();
  await takePictures(browser, real ?? (await mock.listen()));
  mock?.close();
}
await browser.close();
process.exit(failed ? 1 : 0);
