;; The agent `tally` of the workspaces that are deployed: it counts what it is sent, keeps the count as its state, and tells it to
;; whoever sent the message. A message with `poison` in it is counted and answered like any other, and then fails: nothing of that
;; may be left.
;;
;; Texts end with a zero byte. What it writes begins at 8192, what the host writes at 65536.
(module
  (import "caxton" "send" (func $send (param i32 i32) (result i64)))
  (import "caxton" "state_get" (func $state_get (param i32 i32) (result i64)))
  (import "caxton" "state_set" (func $state_set (param i32 i32) (result i64)))
  (memory (export "memory") 8)
  (global $free (mut i32) (i32.const 65536))
  ;; Where the text that is being written ends.
  (global $end (mut i32) (i32.const 8192))

  (data (i32.const 0) "\"reply_with\":\"m\00")
  (data (i32.const 64) "\"sender\":\"\00")
  (data (i32.const 128) "poison\00")
  (data (i32.const 192) "\"error\"\00")
  (data (i32.const 256) "\"ok\":\"\00")
  (data (i32.const 320) "{\"key\":\"count\"}\00")
  (data (i32.const 384) "{\"key\":\"count\",\"value\":\"\00")
  (data (i32.const 448) "\"}\00")
  (data (i32.const 512) "{\"performative\":\"inform\",\"receiver\":\"\00")
  (data (i32.const 576) "\",\"in_reply_to\":\"m\00")
  (data (i32.const 640) "\",\"content\":\"counted \00")

  (func (export "alloc") (param $length i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $length))))

  ;; Where the first `needle` between `at` and `end` is over; 0 where there is none.
  (func $find (param $at i32) (param $end i32) (param $needle i32) (result i32)
    (local $place i32) (local $wanted i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (i32.const 0))))
      (local.set $place (i32.const 0))
      (block $differs
        (loop $same
          (local.set $wanted (i32.load8_u (i32.add (local.get $needle) (local.get $place))))
          (if (i32.eqz (local.get $wanted)) (then (return (i32.add (local.get $at) (local.get $place)))))
          (br_if $differs
            (i32.ne (local.get $wanted) (i32.load8_u (i32.add (local.get $at) (local.get $place)))))
          (local.set $place (i32.add (local.get $place) (i32.const 1)))
          (br $same)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))

  (func $put (param $byte i32)
    (i32.store8 (global.get $end) (local.get $byte))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))

  ;; Writes the text at `from` up to a byte that is `last`, which is left out.
  (func $append (param $from i32) (param $last i32)
    (local $byte i32)
    (block $over
      (loop $next
        (local.set $byte (i32.load8_u (local.get $from)))
        (br_if $over (i32.eq (local.get $byte) (local.get $last)))
        (call $put (local.get $byte))
        (local.set $from (i32.add (local.get $from) (i32.const 1)))
        (br $next))))

  (func $append_number (param $number i32)
    (if (i32.ge_u (local.get $number) (i32.const 10))
      (then (call $append_number (i32.div_u (local.get $number) (i32.const 10)))))
    (call $put (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10)))))

  ;; The number whose digits are at `at`; 0 where there are none.
  (func $number (param $at i32) (result i32)
    (local $number i32) (local $digit i32)
    (block $over
      (loop $next
        (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (br_if $over (i32.gt_u (local.get $digit) (i32.const 9)))
        (local.set $number (i32.add (i32.mul (local.get $number) (i32.const 10)) (local.get $digit)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (local.get $number))

  ;; `$find` in an answer of the host's.
  (func $find_in (param $answer i64) (param $needle i32) (result i32)
    (local $at i32)
    (local.set $at (i32.wrap_i64 (i64.shr_u (local.get $answer) (i64.const 32))))
    (call $find (local.get $at) (i32.add (local.get $at) (i32.wrap_i64 (local.get $answer))) (local.get $needle)))

  (func $written (result i32) (i32.sub (global.get $end) (i32.const 8192)))

  (func (export "handle_message") (param $message i32) (param $length i32) (result i32)
    (local $over i32) (local $about i32) (local $sender i32) (local $count i32) (local $answer i64)
    (local.set $over (i32.add (local.get $message) (local.get $length)))
    (local.set $about (call $find (local.get $message) (local.get $over) (i32.const 0)))
    (local.set $sender (call $find (local.get $message) (local.get $over) (i32.const 64)))
    ;; What the platform says is no message of a client's.
    (if (i32.or (i32.eqz (local.get $about)) (i32.eqz (local.get $sender))) (then (return (i32.const 0))))

    (local.set $answer (call $state_get (i32.const 320) (i32.const 15)))
    (if (call $find_in (local.get $answer) (i32.const 192)) (then (return (i32.const 9))))
    (local.set $count (call $find_in (local.get $answer) (i32.const 256)))
    (if (local.get $count) (then (local.set $count (call $number (local.get $count)))))
    (local.set $count (i32.add (local.get $count) (i32.const 1)))

    (call $append (i32.const 384) (i32.const 0))
    (call $append_number (local.get $count))
    (call $append (i32.const 448) (i32.const 0))
    (local.set $answer (call $state_set (i32.const 8192) (call $written)))
    (if (call $find_in (local.get $answer) (i32.const 192)) (then (return (i32.const 9))))

    (global.set $end (i32.const 8192))
    (call $append (i32.const 512) (i32.const 0))
    (call $append (local.get $sender) (i32.const 34))
    (call $append (i32.const 576) (i32.const 0))
    (call $append (local.get $about) (i32.const 34))
    (call $append (i32.const 640) (i32.const 0))
    (call $append_number (local.get $count))
    (call $append (i32.const 448) (i32.const 0))
    (local.set $answer (call $send (i32.const 8192) (call $written)))
    (if (call $find_in (local.get $answer) (i32.const 192)) (then (return (i32.const 9))))

    (if (call $find (local.get $message) (local.get $over) (i32.const 128)) (then (return (i32.const 9))))
    (i32.const 0)))
