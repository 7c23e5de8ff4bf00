"""The gate: JSONata expressions that decide from an evaluation whether a challenger beats the champion."""

from __future__ import annotations

PARSE_EVALUATION = r"$parse($replace($states.result.Body, /:\s*-?(NaN|Infinity)/, ': null'))"
"""evaluation.json as data. Python writes NaN, which is no JSON: it counts as a metric that was not measured."""

VERDICT = r"""(
  $goal := $request.evaluation;
  $isNumber := function($v) { $type($v) = 'number' };
  $shown := function($v) { $isNumber($v) ? $string($round($v, 6)) : 'not a number' };
  $check := function($ok, $text) { {'ok': $ok, 'text': ($ok ? '' : 'failed: ') & $text} };
  $score := $type($evaluation.challenger) = 'object' ? $lookup($evaluation.challenger, $goal.metric);
  $toBeat := $type($evaluation.champion) = 'object' ? $lookup($evaluation.champion, $goal.metric);
  $measured := $isNumber($evaluation.rows) and $evaluation.rows > 0;
  $comparison := function() {(
    $gain := $round($goal.goal = 'maximize' ? $score - $toBeat : $toBeat - $score, 9);
    $check($gain > 0 and $gain >= $goal.minimum_improvement,
      $goal.metric & ' ' & $shown($score) & ' against ' & $shown($toBeat) & ' of champion version ' & $champion.version
      & ', ' & ($gain < 0 ? 'worse by ' & $shown(-$gain) : 'better by ' & $shown($gain))
      & ($goal.minimum_improvement > 0 ? '; wanted is ' & $shown($goal.minimum_improvement)))
  )};
  $contest := $not($isNumber($score)) ? $check(false, $goal.metric & ' of the challenger is not a number')
    : $champion = null ? $check(true, $goal.metric & ' ' & $shown($score) & '; there is no champion to beat')
    : $not($isNumber($toBeat)) ? $check(false, $goal.metric & ' of the champion is not a number')
    : $comparison();
  $guards := $map($goal.guards, function($guard) {(
    $value := $type($evaluation.challenger) = 'object' ? $lookup($evaluation.challenger, $guard.metric);
    $low := $isNumber($guard.at_least); $high := $isNumber($guard.at_most);
    $held := $isNumber($value) ? ($low ? $value >= $guard.at_least : true) and ($high ? $value <= $guard.at_most : true)
      : false;
    $check($held, 'guard ' & $guard.metric & ' ' & $shown($value)
      & ($low ? ', at least ' & $shown($guard.at_least)) & ($high ? ', at most ' & $shown($guard.at_most)))
  )});
  $rows := $check($measured, 'evaluated on ' & $shown($evaluation.rows) & ' rows');
  $checks := $append($append([$contest], $guards), [$rows]);
  {
    'passed': $count($checks[$not(ok)]) = 0,
    'reasons': [$checks.text],
    'challenger': $shown($score),
    'champion': $champion = null ? 'none' : $shown($toBeat)
  }
)"""
"""{passed, reasons, challenger, champion} from the variables `request`, `evaluation` and `champion` (or null)."""

METADATA_TEXT = r"""$text := function($v) {(
  $plain := $trim($replace($string($v), /[^A-Za-z0-9 _.:\/=+@-]/, ' '));
  $plain = '' ? 'none' : $substring($plain, 0, 256)
)}"""
"""A value as the registry's metadata takes it: 1 to 256 characters, none of them a brace, a quote or a comma."""
