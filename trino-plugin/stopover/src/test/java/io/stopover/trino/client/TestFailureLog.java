/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import org.junit.jupiter.api.Test;

import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

import static io.stopover.trino.client.TestFailureKind.failure;
import static org.assertj.core.api.Assertions.assertThat;

class TestFailureLog
{
    private static final Daemon A = Daemon.of(URI.create("http://a:7077"));
    private static final Daemon B = Daemon.of(URI.create("http://b:7077"));

    private final TestingClock clock = new TestingClock();
    private final FailureLog log = new FailureLog(clock);

    @Test
    void testOneWarningPerDaemonKindAndMinute()
    {
        List<String> messages = messages(() -> {
            for (int i = 0; i < 100; i++) {
                log.failed(A, failure(FailureKind.REFUSED), i == 0);
                log.failed(A, failure(FailureKind.TIMED_OUT), false);
                log.failed(B, failure(FailureKind.REFUSED), i == 0);
            }
        });
        assertThat(messages).hasSize(3);
        assertThat(messages.get(0)).startsWith("WARNING Avoiding daemon http://a:7077 for a while")
                .contains("connection refused");
        assertThat(messages.get(1)).startsWith("WARNING Request to daemon http://a:7077 failed");
        clock.advanceSeconds(60);
        assertThat(messages(() -> log.failed(A, failure(FailureKind.REFUSED), true)))
                .singleElement().asString().endsWith("(99 similar messages were suppressed)");
    }

    @Test
    void testEndOfAnExchangeAndCancellationAreNotLogged()
    {
        assertThat(messages(() -> {
            log.failed(A, failure(FailureKind.FINAL), false);
            log.failed(A, failure(FailureKind.LOCAL), false);
        })).isEmpty();
    }

    @Test
    void testReturnToRotationIsLogged()
    {
        assertThat(messages(() -> log.returned(A)))
                .containsExactly("INFO Daemon http://a:7077 is back in rotation");
    }

    static List<String> messages(Runnable action)
    {
        return messages(FailureLog.class, action);
    }

    static List<String> messages(Class<?> source, Runnable action)
    {
        return messages(source.getName(), action);
    }

    /** Messages that a class or package logs while the action runs, each with its level. */
    static List<String> messages(String source, Runnable action)
    {
        List<String> messages = new ArrayList<>();
        Logger logger = Logger.getLogger(source);
        Level level = logger.getLevel();
        Handler handler = new Handler()
        {
            @Override
            public synchronized void publish(LogRecord message)
            {
                messages.add(message.getLevel() + " " + message.getMessage());
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        };
        logger.setLevel(Level.INFO);
        logger.addHandler(handler);
        try {
            action.run();
        }
        finally {
            logger.removeHandler(handler);
            logger.setLevel(level);
        }
        return messages;
    }
}
