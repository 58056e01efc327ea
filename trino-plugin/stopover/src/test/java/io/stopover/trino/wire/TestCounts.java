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
package io.stopover.trino.wire;

import org.junit.jupiter.api.Test;

import static io.stopover.trino.wire.Counts.count;
import static org.assertj.core.api.Assertions.assertThat;

class TestCounts
{
    @Test
    void testExactlyOneHasTheSingular()
    {
        assertThat(count(0, "page")).isEqualTo("0 pages");
        assertThat(count(1, "page")).isEqualTo("1 page");
        assertThat(count(2, "page")).isEqualTo("2 pages");
        assertThat(count(-1, "byte")).isEqualTo("-1 bytes");
        assertThat(count(1, "batch")).isEqualTo("1 batch");
        assertThat(count(2, "batch")).isEqualTo("2 batches");
    }
}
