#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# A program for fcgiwrap that answers after 60 ms.
sleep 0.06
printf 'Content-Type: text/plain\r\n\r\nhello\n'
